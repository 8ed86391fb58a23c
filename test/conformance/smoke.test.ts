/** What the public selftest sev_smoke_test asks of SEV's guests, asked of every technology's. */
import { expect } from 'vitest';
import { GUEST_CALL } from '../../src/abi/pkvm.ts';
import type { GuestCpu, GuestFlow } from '../../src/lab/guest/flow.ts';
import { hvc } from '../../src/lab/guest/pkvm-guest.ts';
import { say, TestVm } from './kits/test-vm.ts';
import { PAGE } from './session.ts';
import { conformance } from './suite.ts';

const TDX_LEAF = 0x21;
const SEV_STATUS_MSR = 0xc001_0131;
/** SEV, SEV-ES and SNP. */
const SNP_GUEST = 0b111n;

/** What a guest can ask to learn what it is, and the answer there. */
const IDENTITIES: Readonly<Record<string, readonly [ask: (cpu: GuestCpu) => GuestFlow<unknown>, unknown]>> = {
  tdx: [
    function* (cpu) {
      const [, ebx, ecx, edx] = yield* cpu.cpuid(TDX_LEAF);
      return new TextDecoder().decode(Uint32Array.of(ebx, edx, ecx));
    },
    'IntelTDX    ',
  ],
  snp: [(cpu) => cpu.rdmsr(SEV_STATUS_MSR), SNP_GUEST],
  pkvm: [(cpu) => hvc(cpu, GUEST_CALL.hypMeminfo), PAGE],
};

conformance('sev_smoke_test, for all', {
  async bits(kit) {
    const vm = await TestVm.start(kit);
    const [ask, expected] = IDENTITIES[kit.subject.name]!;
    let answer: unknown;
    vm.script(function* (cpu) {
      answer = yield* ask(cpu);
      yield* say(cpu, 1);
    });
    expect(await vm.listen()).toBe(1);
    expect(answer).toEqual(expected);
    await vm.end();
  },

  async shutdown(kit) {
    const vm = await TestVm.start(kit);
    vm.script(function* (cpu) {
      yield* cpu.tripleFault();
    });
    const { name, errno } = await vm.runConverting();
    expect([name, errno]).toEqual(['SHUTDOWN', null]);
    await vm.end();
  },
});
