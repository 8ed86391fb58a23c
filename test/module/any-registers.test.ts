import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GIB, PAGE_4K } from '../../src/abi/address.ts';
import { TDH } from '../../src/abi/leaves.ts';
import { RAX } from '../../src/abi/registers.ts';
import { decodeStatus } from '../../src/abi/status.ts';
import { EXIT } from '../../src/abi/vm-exit.ts';
import { ScriptedGuests } from '../../src/lab/guest/scripted-guests.ts';
import { deliverExit } from '../../src/module/guest/dispatcher.ts';
import type { VmExit } from '../../src/module/guest/vm-exit.ts';
import { VMCS } from '../../src/module/td/vmcs.ts';
import { type ModuleMachine, moduleMachine } from '../support/module-machine.ts';
import { configure, initialise, ONE_TDMR, readyModule, TDMR_ARRAY } from '../support/ready-module.ts';
import { type ReadyTd, readyTd } from '../support/ready-td.ts';

const CALLS_PER_MACHINE = 60;
const MACHINES = 60;
/** Where pages of TDs, structures of the host, and memory that nobody has are. */
const PLACES = [0, 0x10_0000, TDMR_ARRAY, 0x20_0000, ONE_TDMR.base, ONE_TDMR.pamt4kBase, 15 * GIB, 2 ** 46];

/** Values near what checks look for, and any others. */
const value: fc.Arbitrary<bigint> = fc.oneof(
  fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }),
  fc.integer({ min: 0, max: 63 }).map((bit) => 1n << BigInt(bit)),
  fc.integer({ min: 0, max: 16 }).map(BigInt),
  fc.constant(0xffff_ffff_ffff_ffffn),
  fc
    .tuple(
      fc.constantFrom(...PLACES),
      fc.integer({ min: 0, max: 40 }),
      fc.constantFrom(0, 1, 2, 8, 64, 256, 1024),
    )
    .map(([place, page, offset]) => BigInt(place + page * PAGE_4K + offset)),
);
const leaf = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 0, max: 170 }) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 0xffff }) },
);
const version = fc.oneof(
  { weight: 6, arbitrary: fc.constant(0) },
  { weight: 2, arbitrary: fc.constant(1) },
  { weight: 1, arbitrary: fc.integer({ min: 2, max: 255 }) },
);
const calls = fc.array(
  fc.record({
    leaf,
    version,
    high: fc.oneof(
      { weight: 15, arbitrary: fc.constant(0n) },
      { weight: 1, arbitrary: fc.bigInt(1n, 0x7f_ffff_ffffn) },
    ),
    registers: fc.array(value, { minLength: 16, maxLength: 16 }),
    lp: fc.integer({ min: 0, max: 3 }),
  }),
  { minLength: 1, maxLength: CALLS_PER_MACHINE, size: 'max' },
);

/** Leaves that write where the host says: on a page of a TD, that breaks the TD as any write of the host does. */
const WRITES_TO_HOST: ReadonlySet<number> = new Set([TDH.sysInfo, TDH.sysRdall]);

const STATES: readonly (readonly [name: string, make: () => ModuleMachine])[] = [
  ['before SYS.INIT', () => moduleMachine()],
  ['after SYS.INIT', () => initialise(moduleMachine())],
  [
    'after SYS.CONFIG',
    () => {
      const host = initialise(moduleMachine());
      configure(host, [ONE_TDMR]);
      return host;
    },
  ],
  ['when it is ready', () => readyModule()],
  ['with dynamic PAMT', () => readyModule({ dynamicPamt: true })],
  ['with a TD under construction', () => readyTd({ l2Vms: 1 })],
  ['with a debug TD that can run', () => readyTd({ runnable: true, attributes: 1n })],
];

/** TDs have their pages from the TDMR's base on, its page metadata lie above. */
function isPrivatePlace(place: bigint): boolean {
  return place >= BigInt(ONE_TDMR.base) && place < BigInt(8 * GIB);
}

function isAnswer(status: bigint): boolean {
  return decodeStatus(status).name !== undefined;
}

describe('a SEAMCALL with any registers gets a status', () => {
  for (const [name, make] of STATES) {
    it(name, () => {
      fc.assert(
        fc.property(calls, (list) => {
          const { machine } = make();
          for (const call of list) {
            const lp = machine.lps[call.lp]!;
            // A guest that came to run there would have to make the LP's next call.
            if (call.leaf === TDH.vpEnter || WRITES_TO_HOST.has(call.leaf)) continue;
            lp.vmxOperation = true;
            call.registers.forEach((register, i) => {
              lp.regs.q[i] = register;
            });
            lp.regs.q[RAX] = BigInt(call.leaf) | (BigInt(call.version) << 16n) | (call.high << 24n);
            expect(lp.seamcall()).toBe(true);
            expect(isAnswer(lp.regs.q[RAX]!)).toBe(true);
          }
        }),
        { numRuns: MACHINES },
      );
    });
  }

  it('also VP.ENTER, and leaves that write to the memory of the host', () => {
    const host = readyTd({ runnable: true });
    const guests = new ScriptedGuests();
    guests.set(Number(host.tdvpr), function* (cpu) {
      for (;;) yield* cpu.interrupt();
    });
    host.module.guestRunner = guests;
    fc.assert(
      fc.property(fc.constantFrom(TDH.vpEnter, TDH.sysInfo, TDH.sysRdall), calls, (leafNumber, list) => {
        for (const { registers, lp: index } of list) {
          const lp = host.machine.lps[index]!;
          lp.vmxOperation = true;
          registers.forEach((register, i) => {
            lp.regs.q[i] = register;
          });
          lp.regs.q[RAX] = BigInt(leafNumber);
          // Any buffers but ones where TDs or the module may have pages.
          if (leafNumber !== TDH.vpEnter && lp.regs.q.some(isPrivatePlace)) continue;
          lp.seamcall();
          expect(isAnswer(lp.regs.q[RAX]!)).toBe(true);
        }
      }),
      { numRuns: MACHINES },
    );
  });
});

const TDCALL: VmExit = {
  reason: EXIT.TDCALL,
  qualification: 0n,
  linearAddress: 0n,
  physicalAddress: 0n,
  interruptionInfo: 0,
  errorCode: 0,
  instructionLength: 4,
  instructionInfo: 0,
  idtVectoringInfo: 0,
};
/** Guest pages that are accepted, and one that waits to be. */
const GUEST_PAGES = [0, 0x1000, 0x2000] as const;
const PENDING_PAGE = 0x3000;

/** A TD with a few accepted pages, entered on LP 0 with its guest in long mode. */
function guestOnLp0(): ReadyTd {
  const host = readyTd({ runnable: true, attributes: 1n });
  host.addTables(0, 0);
  for (const gpa of [...GUEST_PAGES, PENDING_PAGE]) {
    expect(host.on(TDH.memPageAug, gpa, 0, { r8: host.page() }).rax).toBe(0n);
  }
  const guests = new ScriptedGuests();
  guests.set(Number(host.tdvpr), function* (cpu) {
    for (const gpa of GUEST_PAGES) yield* cpu.accept(gpa);
    for (;;) yield* cpu.cpuid(0);
  });
  expect(host.status(TDH.vpEnter, { rcx: host.tdvpr })).toBe(0n);
  for (let i = 0; i < GUEST_PAGES.length; i++) guests.step(host.machine.lps[0]!);
  return host;
}

const tdcalls = fc.array(
  fc.record({
    leaf: fc.oneof(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 0xffff })),
    version,
    registers: fc.array(fc.oneof(value, fc.constantFrom(...[...GUEST_PAGES, PENDING_PAGE].map(BigInt))), {
      minLength: 16,
      maxLength: 16,
    }),
  }),
  { minLength: 1, maxLength: CALLS_PER_MACHINE, size: 'max' },
);

describe('a TDCALL with any registers', () => {
  it('comes back to the guest with a status, injects an exception, or goes to the host', () => {
    const outcomes = new Set<string>();
    fc.assert(
      fc.property(tdcalls, (list) => {
        const { module, status, tdvpr } = guestOnLp0();
        for (const { leaf: number, version: v, registers } of list) {
          let vcpu = module.running[0];
          if (vcpu === undefined) {
            if (status(TDH.vpEnter, { rcx: tdvpr }) !== 0n) return;
            vcpu = module.running[0]!;
          }
          registers.forEach((register, i) => {
            vcpu.regs.q[i] = register;
          });
          vcpu.regs.q[RAX] = BigInt(number) | (BigInt(v) << 16n);
          const outcome = deliverExit(vcpu, TDCALL);
          outcomes.add(outcome);
          if (outcome === 'resumed') expect(isAnswer(vcpu.regs.q[RAX]!)).toBe(true);
          if (outcome === 'exited') expect(isAnswer(vcpu.lp.regs.q[RAX]!)).toBe(true);
          vcpu.vmcs.write(VMCS.ENTRY_INTERRUPTION_INFO, 0n);
        }
      }),
      { numRuns: MACHINES },
    );
    expect([...outcomes].sort()).toEqual(['exited', 'injected', 'resumed']);
  });
});
