/** Random hypercalls of a host and several guests, against a model of ownership that knows nothing of states. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../src/abi/address.ts';
import { GUEST_CALL, HOST_CALL, SMCCC, signedRegister, X } from '../../src/abi/pkvm.ts';
import { EXIT } from '../../src/abi/vm-exit.ts';
import type { GuestContext, GuestExit } from '../../src/machine/guest-code.ts';
import { type PkvmMachine, pkvmMachine, type TestVm } from '../support/pkvm-machine.ts';
import { PkvmModel } from '../support/pkvm-model.ts';
import '../support/seed.ts';

const PAGES = 3;
const FRAMES = 2;
const GUESTS = [true, true, false, false] as const;
const FIRST_FRAME = 0x40;
const DONE: GuestExit = { reason: EXIT.HLT, qualification: 0n, gpa: 0, instructionLengthBytes: 1 };

/** What happens how often. */
const OPERATIONS = {
  hostStore: 4,
  shareHyp: 1,
  unshareHyp: 2,
  donate: 8,
  lend: 2,
  takeBack: 3,
  guestShare: 5,
  guestUnshare: 5,
  guestStore: 5,
  seize: 3,
  end: 1,
} as const;

interface Step {
  readonly operation: keyof typeof OPERATIONS;
  readonly page: number;
  readonly guest: number;
  readonly frame: number;
  readonly value: number;
}

const NAMES = (Object.keys(OPERATIONS) as Step['operation'][]).flatMap((name) =>
  new Array<Step['operation']>(OPERATIONS[name]).fill(name),
);

const STEP: fc.Arbitrary<Step> = fc.record({
  operation: fc.constantFrom(...NAMES),
  page: fc.nat(PAGES - 1),
  guest: fc.nat(GUESTS.length - 1),
  frame: fc.nat(FRAMES - 1),
  value: fc.integer({ min: 1, max: 255 }),
});

/** Host, guests and model side by side. */
class Lockstep {
  readonly host: PkvmMachine = pkvmMachine();
  readonly model = new PkvmModel(PAGES, GUESTS);
  readonly first = this.host.take(PAGES);
  readonly vms: TestVm[] = GUESTS.map((isProtected) => this.host.createVm(isProtected));
  /** What the guest does when it runs next. */
  #script: (context: GuestContext) => GuestExit = () => DONE;

  constructor() {
    this.host.machine.guestCode = { run: (context) => this.#script(context) };
  }

  /** Does a step on both; both say whether it was allowed. */
  step({ operation, page, guest, frame, value }: Step): void {
    const { host, model } = this;
    const pfn = this.first + page;
    const gfn = FIRST_FRAME + frame;
    const vm = this.vms[guest]!;
    const actions: Readonly<Record<Step['operation'], () => void>> = {
      hostStore: () => this.#hostStore(page, value),
      shareHyp: () => this.#agree(host.hvc(HOST_CALL.hostShareHyp, [pfn]), model.shareHyp(page)),
      unshareHyp: () => this.#agree(host.hvc(HOST_CALL.hostUnshareHyp, [pfn]), model.unshareHyp(page)),
      donate: () => this.#agree(host.donate(vm, pfn, gfn), model.donate(guest, page, frame)),
      lend: () => this.#agree(host.share(vm, pfn, gfn), model.lend(guest, page, frame)),
      takeBack: () => {
        const result = host.hvc(HOST_CALL.hostUnshareGuest, [vm.handle, gfn, 1]);
        this.#agree(result, model.takeBack(guest, frame));
      },
      guestShare: () =>
        this.#guestCall(guest, frame, GUEST_CALL.memShare, () => model.guestShare(guest, frame)),
      guestUnshare: () =>
        this.#guestCall(guest, frame, GUEST_CALL.memUnshare, () => model.guestUnshare(guest, frame)),
      guestStore: () => this.#guestStore(guest, frame, value),
      seize: () => this.#agree(host.hvc(HOST_CALL.forceReclaimGuestPage, [pfn, 1]), model.seize(page)),
      end: () => {
        host.destroy(vm);
        model.end(guest);
        this.vms[guest] = host.createVm(GUESTS[guest]!);
      },
    };
    actions[operation]();
  }

  /** Everybody sees what the model says, and nothing else. */
  check(): void {
    for (const [page, { contents }] of this.model.pages.entries()) {
      const load = (): number => this.host.load(this.first + page, 1)[0]!;
      if (this.model.hostMayUse(page)) expect([page, load()]).toEqual([page, contents]);
      else expect(load).toThrow(/stage 2/);
    }
    for (let guest = 0; guest < GUESTS.length; guest++) {
      for (let frame = 0; frame < FRAMES; frame++) {
        const page = this.model.guestPage(guest, frame);
        const wanted = page === undefined ? 'fault' : this.model.pages[page]!.contents;
        expect([guest, frame, this.#guestLoad(guest, frame)]).toEqual([guest, frame, wanted]);
      }
    }
  }

  #agree(result: number | string, isAllowed: boolean): void {
    expect(result === 0).toBe(isAllowed);
  }

  #hostStore(page: number, value: number): void {
    const store = (): void => this.host.store(this.first + page, Uint8Array.of(value));
    if (!this.model.hostMayUse(page)) {
      expect(store).toThrow(/stage 2/);
      return;
    }
    store();
    this.model.pages[page]!.contents = value;
  }

  #guestStore(guest: number, frame: number, value: number): void {
    const page = this.model.guestPage(guest, frame);
    const exit = this.#run(guest, (context) => {
      const where = context.translate((FIRST_FRAME + frame) * PAGE_4K, 'write');
      if (!('address' in where)) return where as GuestExit;
      context.lp.machine.memory.write(where.address, Uint8Array.of(value), where.keyId);
      return DONE;
    });
    expect(exit.reason === DONE.reason).toBe(page !== undefined);
    if (page !== undefined) this.model.pages[page]!.contents = value;
  }

  #guestLoad(guest: number, frame: number): number | 'fault' {
    let value: number | 'fault' = 'fault';
    this.#run(guest, (context) => {
      const where = context.translate((FIRST_FRAME + frame) * PAGE_4K, 'read');
      if (!('address' in where)) return where as GuestExit;
      [value] = context.lp.machine.memory.read(where.address, 1, where.keyId) as unknown as [number];
      return DONE;
    });
    return value;
  }

  /** HVC with the host agreeing to what it hears of; a call that waits for pages is given up. */
  #guestCall(guest: number, frame: number, call: number, apply: () => boolean): void {
    if (!GUESTS[guest]) return;
    const exit = this.#run(guest, (context) => {
      context.regs.q.fill(0n);
      context.regs.q[X.x0] = BigInt(call);
      context.regs.q[X.x1] = BigInt((FIRST_FRAME + frame) * PAGE_4K);
      const outcome = context.instruction('hvc', context.regs);
      return outcome === 'done' ? DONE : (outcome as GuestExit);
    });
    const isRepeated = exit.isRepeated;
    let status: number = SMCCC.invalidParameter;
    this.host.patchVcpu(this.vms[guest]!, { regs: new Array(16).fill(0n) });
    this.#run(guest, (context) => {
      if (!isRepeated) status = signedRegister(context.regs, X.x0);
      return DONE;
    });
    expect(status === SMCCC.success).toBe(apply());
  }

  #run(
    guest: number,
    script: (context: GuestContext) => GuestExit,
  ): { readonly reason: number; readonly isRepeated: boolean } {
    this.#script = script;
    const vm = this.vms[guest]!;
    expect(this.host.loaded(vm, () => this.host.hvc(HOST_CALL.vcpuRun))).toBe(0);
    const { exitReason, callNeeds } = this.host.hostVcpu(vm);
    return { reason: Number(exitReason), isRepeated: callNeeds !== 0n };
  }
}

describe('random hypercalls', () => {
  it('keep one owner per page, guest bytes from the host, and wipe what comes back', () => {
    fc.assert(
      fc.property(fc.array(STEP, { minLength: 40, maxLength: 120 }), (steps) => {
        const both = new Lockstep();
        for (const step of steps) both.step(step);
        both.check();
      }),
      { numRuns: 150 },
    );
  });

  it('agree after every single step', () => {
    fc.assert(
      fc.property(fc.array(STEP, { minLength: 20, maxLength: 60 }), (steps) => {
        const both = new Lockstep();
        for (const step of steps) {
          both.step(step);
          both.check();
        }
      }),
      { numRuns: 60 },
    );
  });
});
