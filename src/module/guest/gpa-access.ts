/** Memory operands of guest leaves: the way from a GPA to memory, as the CPU's page walker would go it (module facts 9). */
import { offsetIn, PAGE_4K } from '../../abi/address.ts';
import { STATUS } from '../../abi/status-codes.ts';
import { EXIT } from '../../abi/vm-exit.ts';
import { isSharedHpa } from '../platform.ts';
import { MODULE_MSR } from '../platform-msrs.ts';
import { TD_CTLS } from '../td/features.ts';
import { isGpaValid, isSharedGpa } from '../td/gpa.ts';
import { SEPT_LEVEL, SEPT_LEVEL_SIZES } from '../td/sept.ts';
import { isPendingAcceptable, type SeptEntry } from '../td/sept-entry.ts';
import type { TrustDomain } from '../td/trust-domain.ts';
import { VMCS } from '../td/vmcs.ts';
import { injectVe, VE_CATEGORY } from './injection.ts';
import type { RunningVcpu } from './running-vcpu.ts';
import { exitForEptViolation, exitToHost } from './td-exit.ts';

/** Extended exit qualification: the page waits to be accepted. @public */
export const EEQ_PENDING = 6n;

const READ = 1;
const WRITE = 2;
const QUALIFICATION = { READ: 1n << 0n, WRITE: 1n << 1n, PERMISSIONS_SHIFT: 3n } as const;
const LEAF = 1 << 7;
const MEMORY_TYPE = 0b111 << 3;
/** Memory types that are reserved in a leaf: 2, 3 and 7. */
const RESERVED_TYPES: ReadonlySet<number> = new Set([2 << 3, 3 << 3, 7 << 3]);
const SUPPRESS_VE = 0x8000_0000;
/** Bits 7:3 of an entry that leads to a table are reserved. */
const TABLE_RESERVED = 0b1_1111 << 3;
/** IA32_VMX_EPT_VPID_CAP bit 0: entries may allow execution alone. */
const EXECUTE_ONLY = 1n;

/** Memory that a guest leaf may use. @public */
export interface GuestMemory {
  readonly address: number;
  readonly keyId: number;
}

/** The vCPU went to the host, or goes on with an event: the leaf has no status to return. @public */
export type Interrupted = 'left' | 'reentered';

type Fault = 'violation' | 'convertible' | 'misconfiguration';

/** @internal */
export interface Walk {
  readonly fault?: Fault;
  readonly address: number;
  readonly entry: SeptEntry;
  /** R, W and X that every entry on the way grants. */
  readonly permissions: number;
}

/**
 * Finds the memory of a GPA operand. Returns TDX_OPERAND_INVALID for a GPA that the TD cannot have; a page that is not
 * there or not accessible makes the vCPU exit or take a #VE, as the access itself would.
 * @public
 */
export function accessGpa(
  vcpu: RunningVcpu,
  gpa: number | undefined,
  access: 'read' | 'write',
  privateOnly: boolean,
): GuestMemory | Interrupted | bigint {
  const { tdcs, td } = vcpu;
  if (gpa === undefined || !isGpaValid(tdcs, gpa, privateOnly)) return STATUS.TDX_OPERAND_INVALID;
  const shared = isSharedGpa(tdcs, gpa);
  const wanted = access === 'write' ? READ | WRITE : READ;
  const walk = shared ? walkShared(vcpu, gpa, wanted) : walkPrivate(td, gpa, wanted);
  if (walk.fault === undefined) {
    if (!shared) return { address: walk.address, keyId: td.keyId };
    const memory = sharedMemory(vcpu, walk.address);
    if (memory !== undefined) return memory;
  }
  const granted = BigInt(walk.permissions) << QUALIFICATION.PERMISSIONS_SHIFT;
  const qualification = (access === 'write' ? QUALIFICATION.WRITE : QUALIFICATION.READ) | granted;
  if (!shared) return privateFault(vcpu, gpa, qualification, walk.entry);
  if (walk.fault === 'violation') return exitForEptViolation(vcpu, qualification, BigInt(gpa));
  if (walk.fault === 'convertible') return reenterWithVe(vcpu, gpa, qualification, 'ARCH');
  return exitToHost(vcpu, STATUS.TDX_SUCCESS, {
    reason: EXIT.EPT_MISCONFIGURATION,
    gpa: BigInt(gpa - offsetIn(gpa, PAGE_4K)),
  });
}

/**
 * Where the CPU finds the memory of `gpa` for an access by the guest itself; undefined where the access is an EPT
 * violation, 'convertible' for one that the CPU makes a #VE of, unless the guest has one to read already.
 * @public
 */
export function translateGpa(
  vcpu: RunningVcpu,
  gpa: number,
  access: 'read' | 'write',
): GuestMemory | 'convertible' | undefined {
  const { tdcs, td } = vcpu;
  if (!isGpaValid(tdcs, gpa, false)) return undefined;
  const wanted = access === 'write' ? READ | WRITE : READ;
  const shared = isSharedGpa(tdcs, gpa);
  const walk = shared ? walkShared(vcpu, gpa, wanted) : walkPrivate(td, gpa, wanted);
  if (walk.fault === 'convertible') return walk.fault;
  if (walk.fault !== undefined) return undefined;
  return shared ? sharedMemory(vcpu, walk.address) : { address: walk.address, keyId: td.keyId };
}

function privateFault(vcpu: RunningVcpu, gpa: number, qualification: bigint, entry: SeptEntry): Interrupted {
  if (!isPendingAcceptable(entry)) return exitForEptViolation(vcpu, qualification, BigInt(gpa));
  if (!vcpu.hasControl(TD_CTLS.PENDING_VE_DISABLE)) return reenterWithVe(vcpu, gpa, qualification, 'PENDING');
  return exitForEptViolation(vcpu, qualification, BigInt(gpa), EEQ_PENDING);
}

function reenterWithVe(
  vcpu: RunningVcpu,
  gpa: number,
  qualification: bigint,
  why: 'ARCH' | 'PENDING',
): 'reentered' {
  injectVe(vcpu, VE_CATEGORY[why], {
    reason: EXIT.EPT_VIOLATION,
    qualification,
    physicalAddress: BigInt(gpa),
  });
  return 'reentered';
}

/** Walks the TD's secure EPT for an access that needs the permissions `wanted`: R, W and X from bit 0. @internal */
export function walkPrivate(td: TrustDomain, gpa: number, wanted: number): Walk {
  const ept = td.sept();
  const { entry, level } = ept.walk(gpa, SEPT_LEVEL.PT_4K);
  const permissions = entry.low & 0b111;
  if (permissions === 0 || (permissions & wanted) !== wanted) {
    return { fault: 'violation', address: 0, entry, permissions };
  }
  return { address: ept.translate(entry, level, gpa), entry, permissions };
}

/** Walks the host's EPT for shared pages, which nothing protects from being nonsense. */
function walkShared(vcpu: RunningVcpu, gpa: number, wanted: number): Walk {
  const { module, vmcs, td } = vcpu;
  const platform = module.platform!;
  let permissions = 0b111;
  let table = vmcs.read(VMCS.SHARED_EPTP) & 0xf_ffff_ffff_f000n;
  for (let level = td.sept().rootLevel; ; level--) {
    const index = offsetIn(Math.floor(gpa / SEPT_LEVEL_SIZES[level]!), 512);
    const at = Number(table & ~platform.hkidMask) + 8 * index;
    const keyId = Number((table & platform.hkidMask) >> BigInt(platform.hkidStartBit));
    const raw = module.machine.memory.read64(at, keyId);
    const entry = { low: Number(raw & 0xffff_ffffn), high: Number(raw >> 32n) };
    const granted = entry.low & 0b111;
    permissions &= granted;
    const isLeaf = level === SEPT_LEVEL.PT_4K || (entry.low & LEAF) !== 0;
    table = raw & 0xf_ffff_ffff_f000n;
    const result = { address: 0, entry, permissions };
    if (isMisconfigured(vcpu, entry, level, isLeaf, table)) return { ...result, fault: 'misconfiguration' };
    if (granted === 0 || (granted & wanted) !== wanted) {
      const convertible = (granted === 0 || isLeaf) && entry.high < SUPPRESS_VE;
      return { ...result, fault: convertible ? 'convertible' : 'violation' };
    }
    if (isLeaf) {
      const size = SEPT_LEVEL_SIZES[level]!;
      const base = Number(table) - (Number(table) % size);
      return { ...result, address: base + (gpa % size) };
    }
  }
}

/** Combinations of permissions and reserved bits that the CPU rejects (Intel SDM volume 3, EPT misconfigurations). */
function isMisconfigured(
  { module }: RunningVcpu,
  { low }: SeptEntry,
  level: number,
  isLeaf: boolean,
  table: bigint,
): boolean {
  const platform = module.platform!;
  const executeOnly = (platform.msrs.get(MODULE_MSR.VMX_EPT_VPID_CAP)! & EXECUTE_ONLY) !== 0n;
  if ((low & 0b11) === WRITE || ((low & 0b101) === 0b100 && !executeOnly)) return true;
  if ((low & 0b111) === 0) return false;
  if ((level > SEPT_LEVEL.PDPT_1G || !isLeaf) && (low & TABLE_RESERVED) !== 0) return true;
  if (!isLeaf) return !isSharedHpa(platform, table, PAGE_4K);
  const misaligned = Number(table) % SEPT_LEVEL_SIZES[level]! !== 0;
  return misaligned || RESERVED_TYPES.has(low & MEMORY_TYPE);
}

/** The 4 KiB page of a shared translation must be memory that the host may have. */
function sharedMemory({ module }: RunningVcpu, address: number): GuestMemory | undefined {
  const platform = module.platform!;
  const page = BigInt(address - offsetIn(address, PAGE_4K));
  if (!isSharedHpa(platform, page, PAGE_4K)) return undefined;
  const hpa = BigInt(address);
  return {
    address: Number(hpa & ~platform.hkidMask),
    keyId: Number((hpa & platform.hkidMask) >> BigInt(platform.hkidStartBit)),
  };
}
