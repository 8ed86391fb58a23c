/** How guests of each technology use their memory: what an ordinary kernel does about exceptions, and no more. */
import { PAGE_4K } from '../../../src/abi/address.ts';
import { GHCB_MSR } from '../../../src/abi/ghcb.ts';
import { TDG } from '../../../src/abi/leaves.ts';
import { SMCCC } from '../../../src/abi/pkvm.ts';
import { type GuestCpu, GuestException, type GuestFlow } from '../../../src/lab/guest/flow.ts';
import { sharePages, unsharePages } from '../../../src/lab/guest/pkvm-guest.ts';
import { SnpVerbs } from '../../../src/lab/guest/snp-guest.ts';
import { VECTOR_VC, VECTOR_VE } from '../../../src/machine/exceptions.ts';
import { VC_NOT_VALIDATED } from '../../../src/machine/snp/rmp-checks.ts';
import type { Kind } from './ledger.ts';

const SHARED_BIT = 47;
const C_BIT = 51;
const MAP_GPA = 0x1_0001n;
const MAP_GPA_RETRY = 1n;
/** GHCBs of vCPUs lie in a slot of their own. */
export const GHCB_PAGES = 0x6000_0000;
/** Tries of an access to memory that is not there for the time being. */
const TRIES = 20;

/** What guests can say and do. */
export interface Dialect {
  /** Before anything else. */
  start(): GuestFlow;
  /** Null where there is no memory. */
  read(gpa: number, length: number, kind: Kind): GuestFlow<Uint8Array | null>;
  /** False where there is no memory. */
  write(gpa: number, bytes: Uint8Array, kind: Kind): GuestFlow<boolean>;
  /** Asks the host; true when it agreed. */
  convert(gpa: number, pages: number, toPrivate: boolean): GuestFlow<boolean>;
}

/** `tell` hears of each page that the guest takes for a new one, before it does. */
export type DialectOf = (cpu: GuestCpu, tell: (gpa: number) => void) => Dialect;

/** Attributes alone tell private from shared. */
export const plainDialect: DialectOf = (cpu) => ({
  *start() {},
  read: (gpa, length) => cpu.read(gpa, length),
  *write(gpa, bytes) {
    yield* cpu.write(gpa, bytes);
    return true;
  },
  *convert(gpa, pages, toPrivate) {
    return (yield* cpu.mapGpaRange(gpa, pages, toPrivate)) === 0n;
  },
});

export const pkvmDialect: DialectOf = (cpu, tell) => ({
  ...plainDialect(cpu, tell),
  *convert(gpa, pages, toPrivate) {
    const call = toPrivate ? unsharePages : sharePages;
    for (let tries = 0; tries < TRIES; tries++) {
      if ((yield* call(cpu, gpa, pages)) === SMCCC.success) return true;
      // The host still uses the page.
      yield* cpu.interrupt();
    }
    return false;
  },
});

/** Does `access` again and again, with `repair` between, which says whether another try makes sense. */
function* persist<T>(
  cpu: GuestCpu,
  access: () => GuestFlow<T>,
  repair: (exception: GuestException) => GuestFlow<boolean>,
): GuestFlow<T | null> {
  for (let tries = 0; tries < TRIES; tries++) {
    try {
      return yield* access();
    } catch (error) {
      if (!(error instanceof GuestException)) throw error;
      if (!(yield* repair(error))) yield* cpu.interrupt();
    }
  }
  return null;
}

export const tdxDialect: DialectOf = (cpu, tell) => {
  const address = (gpa: number, kind: Kind): number => (kind === 'shared' ? gpa + 2 ** SHARED_BIT : gpa);
  const repair = (gpa: number, kind: Kind) =>
    function* (exception: GuestException): GuestFlow<boolean> {
      if (exception.vector !== VECTOR_VE) throw exception;
      yield* cpu.tdcall(TDG.vpVeinfoGet);
      // A #VE of shared memory is for devices: no slot is there.
      if (kind === 'shared') return false;
      tell(gpa);
      yield* cpu.accept(gpa - (gpa % PAGE_4K));
      return true;
    };
  return {
    *start() {},
    read: (gpa, length, kind) => persist(cpu, () => cpu.read(address(gpa, kind), length), repair(gpa, kind)),
    *write(gpa, bytes, kind) {
      const write = function* (): GuestFlow<boolean> {
        yield* cpu.write(address(gpa, kind), bytes);
        return true;
      };
      return (yield* persist(cpu, write, repair(gpa, kind))) === true;
    },
    *convert(gpa, pages, toPrivate) {
      let at = BigInt(address(gpa, toPrivate ? 'private' : 'shared'));
      const end = at + BigInt(pages * PAGE_4K);
      for (let tries = 0; tries < TRIES; tries++) {
        // R10 is the status, R11 where to go on.
        const out = yield* cpu.vmcall(MAP_GPA, at, end - at);
        if (out[10] !== MAP_GPA_RETRY) return out[10] === 0n;
        at = out[11]!;
      }
      return false;
    },
  };
};

export const snpDialect: DialectOf = (cpu, tell) => {
  const ghcb = GHCB_PAGES + cpu.index * PAGE_4K;
  const verbs = new SnpVerbs(cpu, { cBit: C_BIT, ghcb });
  const address = (gpa: number, kind: Kind): number => (kind === 'private' ? verbs.private(gpa) : gpa);
  const repair = (gpa: number) =>
    function* (exception: GuestException): GuestFlow<boolean> {
      if (exception.vector !== VECTOR_VC) throw exception;
      if (exception.errorCode !== VC_NOT_VALIDATED) return false;
      tell(gpa);
      return (yield* verbs.pvalidate(gpa - (gpa % PAGE_4K))).status === 0;
    };
  return {
    *start() {
      yield* verbs.msrRequest(BigInt(ghcb) | BigInt(GHCB_MSR.REG_GPA_REQ));
    },
    *read(gpa, length, kind) {
      const bytes = yield* persist(cpu, () => cpu.read(address(gpa, kind), length), repair(gpa));
      return bytes === null ? null : bytes.slice();
    },
    *write(gpa, bytes, kind) {
      const write = function* (): GuestFlow<boolean> {
        yield* cpu.write(address(gpa, kind), bytes);
        return true;
      };
      return (yield* persist(cpu, write, repair(gpa))) === true;
    },
    *convert(gpa, pages, toPrivate) {
      for (let i = 0; toPrivate && i < pages; i++) tell(gpa + i * PAGE_4K);
      try {
        return (yield* verbs.convert(gpa, pages, toPrivate)) === 0n;
      } catch (error) {
        if (!(error instanceof GuestException)) throw error;
        return false;
      }
    },
  };
};
