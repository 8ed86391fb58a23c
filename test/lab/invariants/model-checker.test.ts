import { describe, expect, it } from 'vitest';
import { TDH } from '../../../src/abi/leaves.ts';
import { ScriptedGuests } from '../../../src/lab/guest/scripted-guests.ts';
import { createHost } from '../../../src/lab/host.ts';
import { compareState } from '../../../src/lab/invariants/compare.ts';
import { formatDifference } from '../../../src/lab/invariants/differences.ts';
import { InvariantError, ModelChecker } from '../../../src/lab/invariants/model-checker.ts';
import { ModuleView } from '../../../src/lab/invariants/module-view.ts';
import { WatchedGuests } from '../../../src/lab/invariants/watched-guests.ts';
import { LabTd } from '../../../src/lab/td/lab-td.ts';
import { TDCS, TDR } from '../../../src/module/td/layout.ts';
import { TrustDomain } from '../../../src/module/td/trust-domain.ts';
import type { TdxModule } from '../../../src/module/tdx-module.ts';
import { EMBEDDED_HOSTS } from '../../../src/survey/embedded/hosts.ts';
import { moduleMachine } from '../../support/module-machine.ts';
import { readyModule } from '../../support/ready-module.ts';

const GPA = 0x40_0000;

async function watchedHost() {
  const { machine, kernel } = createHost(EMBEDDED_HOSTS.get('spr-256g-2node')!.machine, { module: '1.5.25' });
  await kernel.boot();
  const module = machine.seam.module as TdxModule;
  const checker = new ModelChecker(module);
  machine.seam.observer = checker;
  const scripts = new ScriptedGuests();
  module.guestRunner = new WatchedGuests(scripts, checker);
  return { machine, kernel, module, checker, scripts };
}

describe('a model checker', () => {
  it('follows a TD of a real host from creation through a guest that accepts pages to its end', async () => {
    const { kernel, checker, scripts } = await watchedHost();
    const { state } = checker;
    const td = LabTd.build(kernel, { vcpus: 2, pages: [{ gpa: 0, contents: new Uint8Array([1, 2, 3]) }] });
    const model = state.tds.get(td.tdr)!;
    expect(model).toMatchObject({ opState: 'RUNNABLE', epoch: 1n, initialisedVcpus: 2, keyId: td.keyId });
    expect(model.sept.get(0)).toMatchObject({ state: 'MAPPED', page: td.mapped.get(0) });
    const read: number[] = [];
    scripts.set(td.vcpus[0]!.tdvpr, function* (cpu) {
      yield* cpu.accept(GPA);
      yield* cpu.write(GPA, new Uint8Array([7]));
      yield* cpu.vmcall(12n);
      read.push((yield* cpu.read(GPA, 1))[0]!);
    });
    const cpu = td.cpuOf(td.vcpus[0]!);
    td.augment(GPA);
    expect(model.sept.get(GPA)?.state).toBe('PENDING');
    td.enter(td.vcpus[0]!, cpu);
    expect(model.sept.get(GPA)?.state).toBe('MAPPED');
    td.enter(td.vcpus[0]!, cpu);
    expect(read).toEqual([7]);
    td.remove(GPA);
    expect(model.sept.has(GPA)).toBe(false);
    expect(model.epoch).toBe(2n);
    td.destroy();
    expect(state.pages.size).toBe(0);
    expect(state.tds.size).toBe(0);
    expect([...state.keyIds.values()].filter((key) => key.state !== 'FREE')).toHaveLength(1);
    checker.checkState();
  });

  it('says which object differs in what', async () => {
    const { kernel, module, checker } = await watchedHost();
    const { tdr } = LabTd.build(kernel);
    const real = new TrustDomain(module, tdr);
    real.tdr.setU64(TDR.CHLDCNT, 5n);
    real.tdcs.setU64(TDCS.TD_EPOCH, 9n);
    const lines = compareState(checker.state, new ModuleView(module)).map(formatDifference);
    const pages = checker.state.tds.get(tdr)!.children;
    expect(lines).toEqual([
      `TD 0x${tdr.toString(16)}: child pages is 5, should be ${pages}`,
      `TD 0x${tdr.toString(16)}: TD_EPOCH is 9, should be 1`,
    ]);
  });

  it('throws in the SEAMCALL that breaks something, and names the invariant', () => {
    const host = readyModule();
    host.machine.seam.observer = new ModelChecker(host.module);
    host.module.kot.lock.word = 2;
    const call = (): unknown => host.call(TDH.phymemPageRdmd, { rcx: 0x1_0000_0000n });
    expect(call).toThrow(InvariantError);
    expect(call).toThrow('locksAreFreeBetweenCalls: the lock of the KOT is held');
  });

  it('begins with a module that is ready', () => {
    expect(() => new ModelChecker(moduleMachine().module)).toThrow('not ready');
  });
});
