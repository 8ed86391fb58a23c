/** The guest side of a replay: recorded VM exits are handed to the module as the CPU would, and compared. */
import { hex } from '../../abi/address.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Machine } from '../../machine/machine.ts';
import type { ReportVerdict } from '../../machine/seam-reports.ts';
import { deliverExit } from '../../module/guest/dispatcher.ts';
import { isIntercepted } from '../../module/guest/intercepts.ts';
import type { RunningVcpu } from '../../module/guest/running-vcpu.ts';
import type { GuestOutcome, VmExit } from '../../module/guest/vm-exit.ts';
import { TDCS, TDVPS } from '../../module/td/layout.ts';
import { SEPT_LOW } from '../../module/td/sept-entry.ts';
import { TrustDomain } from '../../module/td/trust-domain.ts';
import { VMCS } from '../../module/td/vmcs.ts';
import type { TdxModule } from '../../module/tdx-module.ts';
import { HP_WORDS, SHAREX_WORDS } from './environment.ts';
import type { GuestPort } from './guest-port.ts';
import { compareRegisters, loadRegisters, type Mismatch } from './mismatch.ts';
import type { GuestLine, GuestStateLine, HeldLock, Injection, SeamcallLine } from './vector-lines.ts';

/** State of a guest beside its general registers, by the names of a recording: fields of the VMCS and the TDVPS. */
const VMCS_STATE: Readonly<Record<string, number>> = {
  cs_ar: VMCS.GUEST_CS_AR,
  ss_ar: VMCS.GUEST_SS_AR,
  efer: VMCS.GUEST_EFER,
  cr0: VMCS.GUEST_CR0,
  cr3: VMCS.GUEST_CR3,
  cr4: VMCS.GUEST_CR4,
  cr0_shadow: VMCS.CR0_SHADOW,
  cr4_shadow: VMCS.CR4_SHADOW,
  rip: VMCS.GUEST_RIP,
  rsp: VMCS.GUEST_RSP,
  rflags: VMCS.GUEST_RFLAGS,
  dr7: VMCS.GUEST_DR7,
  debugctl: VMCS.GUEST_DEBUGCTL,
  intr_state: VMCS.GUEST_INTERRUPTIBILITY,
  pending_dbg: VMCS.GUEST_PENDING_DEBUG,
  activity: VMCS.GUEST_ACTIVITY,
  procbased: VMCS.PROCBASED_CTLS,
};
const TDVPS_STATE: Readonly<Record<string, number>> = { xcr0: TDVPS.XCR0, cr2: TDVPS.CR2 };
/** What a recording compares apart from the state. */
const COMPARED_ELSEWHERE: ReadonlySet<string> = new Set(['rip']);

/** What report verification answers, by the codes of a recording; until one says otherwise, that all is well. */
const VERIFIED = 0;
const VERDICTS: ReadonlyMap<number, ReportVerdict> = new Map([
  [VERIFIED, 'accepted'],
  [4, 'invalid-cpusvn'],
  [5, 'invalid-report'],
]);

const VALID = 0x8000_0000;
const ERROR_CODE_DELIVERED = 1 << 11;

/** Connects the guests of `machine` to a replay. @public */
export function tdGuestPort(machine: Machine): GuestPort {
  return new TdGuestPort(machine);
}

class TdGuestPort implements GuestPort {
  readonly #machine: Machine;

  constructor(machine: Machine) {
    this.#machine = machine;
    // The recorded processor states nothing of itself.
    machine.seam.reports.silent = true;
    this.setVerifyResult(VERIFIED);
  }

  get #module(): TdxModule {
    return this.#machine.seam.module as TdxModule;
  }

  isInGuest(lp: LogicalProcessor): boolean {
    return this.#module.running[lp.index] !== undefined;
  }

  compareEntry(lp: LogicalProcessor, line: SeamcallLine): readonly Mismatch[] {
    const vcpu = this.#vcpu(lp);
    return [
      ...compareRegisters(line.guest ?? {}, vcpu.regs),
      ...compareValue('rip', line.rip, vcpu.vmcs.read(VMCS.GUEST_RIP)),
      ...compareInjection(line.inj, vcpu),
    ];
  }

  deliverExit(lp: LogicalProcessor, line: GuestLine): readonly Mismatch[] {
    if (!this.isInGuest(lp)) return [{ field: 'guest', expected: 'entered', actual: 'not entered' }];
    const vcpu = this.#vcpu(lp);
    loadRegisters(vcpu.regs, line.in);
    const exit = exitOf(line);
    const native = !isIntercepted(vcpu, exit);
    if (native !== (line.result === 'native'))
      return [difference('result', line.result, native ? 'native' : 'exit')];
    if (native) return [];
    vcpu.vmcs.write(VMCS.GUEST_RIP, line.rip);
    const before = stateOf(vcpu);
    let outcome: GuestOutcome;
    try {
      outcome = deliverExit(vcpu, exit);
    } catch (error) {
      return [difference('crash', line.result, String(error))];
    }
    const result = outcome === line.result ? [] : [difference('result', line.result, outcome)];
    if (outcome === 'exited') return [...result, ...compareRegisters(line.host_out ?? {}, lp.regs)];
    return [
      ...result,
      ...compareRegisters(line.out ?? {}, vcpu.regs),
      ...compareValue('rip', line.rip_out, vcpu.vmcs.read(VMCS.GUEST_RIP)),
      ...compareInjection(line.inj, vcpu),
      ...compareState(line.state, before, stateOf(vcpu)),
    ];
  }

  changeState(lp: LogicalProcessor, { set }: GuestStateLine): void {
    if (!this.isInGuest(lp)) return;
    const { vmcs, tdvps } = this.#vcpu(lp);
    for (const [name, value] of Object.entries(set)) {
      if (VMCS_STATE[name] !== undefined) vmcs.write(VMCS_STATE[name], value);
      else tdvps.setU64(TDVPS_STATE[name]!, value);
    }
  }

  holdLock({ obj, tdr, gpa, level, held }: HeldLock): boolean {
    if (tdr === undefined) return false;
    const td = new TrustDomain(this.#module, Number(tdr));
    switch (obj) {
      case 'SEPT_TREE':
        td.tdcs.setU16(TDCS.SEPT_TREE_LOCK, HP_WORDS[held]);
        return true;
      case 'OP_STATE':
        td.tdcs.setU16(TDCS.OP_STATE_LOCK, HP_WORDS[held]);
        return true;
      case 'RTMR':
        td.tdcs.setU16(TDCS.RTMR_LOCK, HP_WORDS[held]);
        return true;
      case 'TD_EPOCH':
        td.tdcs.setU16(TDCS.EPOCH_LOCK, SHAREX_WORDS[held]);
        return true;
      case 'SEPT_ENTRY': {
        const ept = td.sept();
        const { at, entry } = ept.walk(Number(gpa), level ?? 0);
        const low = held === 0 ? entry.low & ~SEPT_LOW.TDEL : entry.low | SEPT_LOW.TDEL;
        ept.write(at, { low: low >>> 0, high: entry.high });
        return true;
      }
      default:
        return false;
    }
  }

  setVerifyResult(result: number): boolean {
    const verdict = VERDICTS.get(result);
    if (verdict === undefined) return false;
    this.#machine.seam.reports.verdict = verdict;
    return true;
  }

  #vcpu(lp: LogicalProcessor): RunningVcpu {
    return this.#module.running[lp.index]!;
  }
}

/** The VM exit that a line describes. @internal */
export function exitOf(line: GuestLine): VmExit {
  return {
    reason: line.exit,
    qualification: line.qual,
    linearAddress: line.gla,
    physicalAddress: line.gpa,
    interruptionInfo: Number(line.intr_info),
    errorCode: 0,
    instructionLength: line.instr_len,
    instructionInfo: Number(line.instr_info),
    idtVectoringInfo: Number(line.idt_vec),
  };
}

/** State of a guest by the names of a recording. @internal */
export type GuestState = ReadonlyMap<string, bigint>;

/** @internal */
export function stateOf({ vmcs, tdvps }: RunningVcpu): GuestState {
  const state = new Map<string, bigint>();
  for (const [name, field] of Object.entries(VMCS_STATE)) state.set(name, vmcs.read(field));
  for (const [name, offset] of Object.entries(TDVPS_STATE)) state.set(name, tdvps.u64(offset));
  return state;
}

/** A recording lists what changed; everything else must be as before. */
function compareState(
  expected: GuestLine['state'],
  before: GuestState,
  after: GuestState,
): readonly Mismatch[] {
  const found: Mismatch[] = [];
  for (const [name, value] of after) {
    if (!COMPARED_ELSEWHERE.has(name))
      found.push(...compareValue(name, expected[name] ?? before.get(name), value));
  }
  return found;
}

function compareInjection(expected: Injection | undefined, { vmcs }: RunningVcpu): readonly Mismatch[] {
  const info = vmcs.read32(VMCS.ENTRY_INTERRUPTION_INFO);
  if (expected === undefined || info < VALID) {
    const none = (expected === undefined) === info < VALID;
    return none ? [] : [difference('inj', expected === undefined ? 'none' : 'an event', hex(info))];
  }
  const hasErrorCode = (info & ERROR_CODE_DELIVERED) !== 0;
  return [
    ...compareValue('inj.vector', BigInt(expected.vector), BigInt(info & 0xff)),
    ...compareValue('inj.type', BigInt(expected.type), BigInt((info >>> 8) & 0b111)),
    ...compareValue(
      'inj.error_code',
      expected.error_code,
      hasErrorCode ? vmcs.read(VMCS.ENTRY_ERROR_CODE) : undefined,
    ),
  ];
}

function compareValue(
  field: string,
  expected: bigint | undefined,
  actual: bigint | undefined,
): readonly Mismatch[] {
  return expected === actual ? [] : [difference(field, text(expected), text(actual))];
}

function text(value: bigint | undefined): string {
  return value === undefined ? 'none' : hex(value);
}

function difference(field: string, expected: string, actual: string): Mismatch {
  return { field, expected, actual };
}
