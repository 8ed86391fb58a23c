/**
 * The SEAMCALL wrapper (Linux host rules 0). Operands go into the LP's own register file and results stay
 * there; the status is a shared constant on success. Nothing is allocated per call: this path carries more than
 * a million calls per second.
 */
import { hex } from '../abi/address.ts';
import { type ErrnoName, KernelError } from '../abi/errno.ts';
import { hostLeafName } from '../abi/leaves.ts';
import { R8, R9, R10, R11, RAX, RCX, RDX, REGISTER_NAMES, setRegNumber } from '../abi/registers.ts';
import { formatStatus, SW_STATUS } from '../abi/status.ts';
import { STATUS } from '../abi/status-codes.ts';
import { CpuException, VECTOR_GP, VECTOR_UD } from '../machine/exceptions.ts';
import type { Cpu } from './cpu.ts';
import type { LogRing } from './log.ts';

/** Tries while the module finds no entropy (RDRAND_RETRY_LOOPS). */
const ENTROPY_TRIES = 10;
/** Upper half of TDX_RND_NO_ENTROPY. */
const NO_ENTROPY_HIGH = Number(STATUS.TDX_RND_NO_ENTROPY >> 32n);
/** RAX bit 63, upper half: the call is for P-SEAMLDR. */
const SEAMLDR_HIGH = 0x8000_0000;

/**
 * Loads the operands of the next call; the other operand registers the wrapper passes (RCX, RDX, R8 to R11)
 * become zero, as in an argument structure that names only some of them.
 * @public
 */
export function setOperands(cpu: Cpu, rcx = 0, rdx = 0, r8 = 0, r9 = 0): void {
  const { regs } = cpu.lp;
  setRegNumber(regs, RCX, rcx);
  setRegNumber(regs, RDX, rdx);
  setRegNumber(regs, R8, r8);
  setRegNumber(regs, R9, r9);
  setRegNumber(regs, R10, 0);
  setRegNumber(regs, R11, 0);
}

/**
 * SEAMCALL of a TDX module leaf on `cpu`, operands loaded before. `leaf` may carry a version in bits 23:16.
 * Returns the status: #GP, #UD and VMFailInvalid come back as software statuses. Repeats while the module
 * lacks entropy, at most ten tries; a leaf that fails so leaves its operands alone.
 * @public
 */
export function seamcall(cpu: Cpu, leaf: number): bigint {
  return retryForEntropy(cpu, leaf, 0);
}

/** SEAMCALL of a P-SEAMLDR leaf (RAX bit 63 set). @public */
export function seamldrCall(cpu: Cpu, leaf: number): bigint {
  return retryForEntropy(cpu, leaf, SEAMLDR_HIGH);
}

function retryForEntropy(cpu: Cpu, low: number, high: number): bigint {
  const { d, q } = cpu.lp.regs;
  for (let tries = ENTROPY_TRIES; tries > 0; tries--) {
    d[2 * RAX] = low;
    d[2 * RAX + 1] = high;
    execute(cpu);
    if (d[2 * RAX + 1] !== NO_ENTROPY_HIGH || d[2 * RAX] !== 0) break;
  }
  return d[2 * RAX] === 0 && d[2 * RAX + 1] === 0 ? STATUS.TDX_SUCCESS : q[RAX]!;
}

function execute(cpu: Cpu): void {
  const { lp } = cpu;
  cpu.cacheStateIncoherent = true;
  try {
    if (!lp.seamcall()) lp.regs.q[RAX] = SW_STATUS.TDX_SEAMCALL_VMFAILINVALID;
  } catch (exception) {
    if (!(exception instanceof CpuException)) throw exception;
    if (exception.vector === VECTOR_GP) lp.regs.q[RAX] = SW_STATUS.TDX_SEAMCALL_GP;
    else if (exception.vector === VECTOR_UD) lp.regs.q[RAX] = SW_STATUS.TDX_SEAMCALL_UD;
    else throw exception;
  }
}

/**
 * SEAMCALL on the initialisation path: returns on status 0, otherwise throws KernelError: ENODEV without a
 * module, EOPNOTSUPP for #GP, EACCES for #UD (all three silent), EIO with a log line for any module status.
 * @public
 */
export function seamcallPrerr(cpu: Cpu, leaf: number, log: LogRing): void {
  const status = seamcall(cpu, leaf);
  if (status !== STATUS.TDX_SUCCESS) throw statusError(cpu, leaf, status, log, false);
}

/** As `seamcallPrerr`, for leaves with outputs: a failure also logs the output registers. @public */
export function seamcallPrerrRet(cpu: Cpu, leaf: number, log: LogRing): void {
  const status = seamcall(cpu, leaf);
  if (status !== STATUS.TDX_SUCCESS) throw statusError(cpu, leaf, status, log, true);
}

const OUTPUTS = [RCX, RDX, R8, R9, R10, R11] as const;

function statusError(cpu: Cpu, leaf: number, status: bigint, log: LogRing, outputs: boolean): KernelError {
  const error = seamcallError(leaf, status, { cpu: cpu.index });
  if (error.errno !== 'EIO') return error;
  const { leafName, statusName } = error.reason.data;
  const text = `SEAMCALL (${hex(leaf)}) failed: 0x${status.toString(16).padStart(16, '0')}`;
  log.err(`${text} ${leafName} ${statusName}`, 'seamcall-failed');
  if (!outputs) return error;
  const registers = Object.fromEntries(
    OUTPUTS.map((i) => [REGISTER_NAMES[i], hex(cpu.lp.regs.q[i]!)] as const),
  );
  const line = Object.entries(registers).map(([name, value]) => `${name.toUpperCase()} ${value}`);
  log.err(line.join(' '));
  return seamcallError(leaf, status, { cpu: cpu.index, registers });
}

/**
 * The error a failed SEAMCALL of the initialisation path becomes: ENODEV (no module), EOPNOTSUPP (#GP), EACCES
 * (#UD), EIO (any module status). The reason's data name the leaf and the status.
 * @public
 */
export function seamcallError(leaf: number, status: bigint, more: Record<string, unknown> = {}): KernelError {
  const leafName = hostLeafName(leaf & 0xffff);
  const statusName = formatStatus(status);
  const data = { leaf, leafName, status: hex(status), statusName, ...more };
  const [errno, code, what] = SOFTWARE_ERRORS.get(status) ?? [
    'EIO',
    'seamcall-failed',
    `failed with ${statusName}`,
  ];
  return new KernelError(errno, code, `${leafName} ${what}`, data);
}

const SOFTWARE_ERRORS: ReadonlyMap<bigint, readonly [errno: ErrnoName, code: string, what: string]> = new Map(
  [
    [SW_STATUS.TDX_SEAMCALL_VMFAILINVALID, ['ENODEV', 'module-not-loaded', 'found no TDX module loaded']],
    [
      SW_STATUS.TDX_SEAMCALL_GP,
      ['EOPNOTSUPP', 'seamcall-gp', 'raised #GP: the BIOS has not enabled SEAM mode'],
    ],
    [SW_STATUS.TDX_SEAMCALL_UD, ['EACCES', 'seamcall-ud', 'raised #UD: the CPU is not in VMX operation']],
  ],
);
