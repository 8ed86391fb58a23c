import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { GIB, PAGE_4K } from '../../../src/abi/address.ts';
import { TDH } from '../../../src/abi/leaves.ts';
import { createHost } from '../../../src/lab/host.ts';
import { inspectHost } from '../../../src/lab/inspect/inspect-host.ts';
import { loadHost, saveHost } from '../../../src/lab/snapshot/save-host.ts';
import { TINY } from '../../kernel/tiny-machine.ts';
import { Lockstep } from '../../support/lockstep.ts';
import { type TdTraces, tdLife } from '../../support/td-life.ts';

const TDS = 3;
/** Leaves that end the module. */
const ENDING: readonly number[] = [TDH.sysShutdown, TDH.sysDisable, TDH.sysLpShutdown];
const LEAVES = Object.values(TDH).filter((leaf) => !ENDING.includes(leaf));
const HOT_ADDED = { start: 12 * GIB, end: 13 * GIB, node: 1, kind: 'ram', state: 'present' } as const;

let booted: Uint8Array;

beforeAll(async () => {
  const host = createHost({ ...TINY, seamLoader: { version: '1.5.00', remainingUpdates: 3 } }, { seed: 42n });
  await host.kernel.boot();
  expect(host.kernel.state).toBe('initialized');
  booted = saveHost(host);
});

type Command =
  | { readonly kind: 'live'; readonly td: number; readonly calls: number }
  | {
      readonly kind: 'meddle';
      readonly leaf: number;
      readonly cpu: number;
      readonly operands: readonly (readonly [pick: number, raw: bigint])[];
    }
  | { readonly kind: 'spoil'; readonly pick: number; readonly bytes: number }
  | { readonly kind: 'cpu'; readonly cpu: number; readonly online: boolean }
  | { readonly kind: 'memory'; readonly what: 'add' | 'online' | 'offline' | 'remove' | 'allocate' };

const command: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('live' as const),
      td: fc.nat(TDS - 1),
      calls: fc.integer({ min: 1, max: 12 }),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('meddle' as const),
      leaf: fc.constantFrom(...LEAVES),
      cpu: fc.nat(3),
      operands: fc.array(fc.tuple(fc.nat(400), fc.bigInt(0n, 0x9fffn)), { minLength: 1, maxLength: 4 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('spoil' as const),
      pick: fc.nat(200),
      bytes: fc.constantFrom(8, 64, PAGE_4K),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('cpu' as const), cpu: fc.nat(4), online: fc.boolean() }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('memory' as const),
      what: fc.constantFrom(
        'add' as const,
        'online' as const,
        'offline' as const,
        'remove' as const,
        'allocate' as const,
      ),
    }),
  },
);

interface Run {
  readonly hosts: Lockstep;
  readonly traces: TdTraces;
  readonly lives: readonly AsyncGenerator<void, void, void>[];
}

async function perform({ hosts, traces, lives }: Run, step: Command): Promise<void> {
  const address = (pick: number): bigint => traces.addresses[pick] ?? 0n;
  switch (step.kind) {
    case 'live':
      for (let i = 0; i < step.calls; i++) await lives[step.td]!.next();
      return;
    case 'meddle':
      await hosts.call(step.cpu, step.leaf, ...step.operands.map(([pick, raw]) => address(pick) || raw));
      return;
    case 'spoil':
      if (address(step.pick) === 0n) return;
      await hosts.each(({ machine }) =>
        machine.lps[0]!.store(Number(address(step.pick)), new Uint8Array(step.bytes).fill(1)),
      );
      return;
    case 'cpu':
      await hosts.each(({ kernel }) =>
        step.online ? kernel.cpuOnline(step.cpu) : kernel.cpuOffline(step.cpu),
      );
      return;
    case 'memory':
      await hosts.each(async ({ machine, kernel }) => {
        if (step.what === 'add') machine.hotAddMemory(HOT_ADDED);
        else if (step.what === 'remove') machine.hotRemoveMemory(HOT_ADDED);
        else if (step.what === 'online') await kernel.onlineMemory(HOT_ADDED);
        else if (step.what === 'offline') await kernel.offlineMemory(HOT_ADDED);
        else return kernel.allocator.allocPages(3, { node: 1, movable: true, purpose: 'test' });
      });
  }
}

describe('a loaded host', () => {
  it('goes on as the saved one does, whatever happened before and happens after', async () => {
    const succeeded = new Set<number>();
    await fc.assert(
      fc.asyncProperty(
        fc.array(command, { minLength: 20, maxLength: 120, size: 'max' }),
        fc.nat(60),
        async (steps, saveAt) => {
          const hosts = new Lockstep(loadHost(booted));
          const traces: TdTraces = { addresses: [] };
          const lives = Array.from({ length: TDS }, () => tdLife(hosts, traces));
          for (const [i, step] of steps.entries()) {
            const isDue = i >= Math.min(saveAt, steps.length - 1) && hosts.hosts.length === 1;
            if (isDue && !hosts.isVcpuEntered) hosts.saveAndLoad();
            await perform({ hosts, traces, lives }, step);
          }
          const [saved, loaded] = hosts.hosts;
          if (loaded === undefined) return;
          expect(loaded.kernel.log.entries).toEqual(saved!.kernel.log.entries);
          expect(loaded.kernel.allocator.accounts()).toEqual(saved!.kernel.allocator.accounts());
          expect(inspectHost(loaded, { sept: true })).toEqual(inspectHost(saved!, { sept: true }));
          await hosts.each((host) => createHash('sha256').update(saveHost(host)).digest('hex'));
          loaded.kernel.allocator.audit();
          for (const leaf of hosts.succeeded) succeeded.add(leaf);
        },
      ),
      { numRuns: 60 },
    );
    const late = [TDH.mrFinalize, TDH.memPageRemove, TDH.mngKeyFreeid, TDH.phymemPageReclaim];
    expect([...succeeded]).toEqual(expect.arrayContaining(late));
  });
});
