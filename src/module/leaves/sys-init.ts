/** TDH.SYS.INIT: checks the platform on one LP and takes the snapshot that everything later goes by. */
import { OPERAND } from '../../abi/operands.ts';
import { R8, R9, R10, RCX, RDX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { HandoffInfo } from '../../machine/seam.ts';
import { decodeFatalInfo } from '../fatal-info.ts';
import type { Leaf } from '../leaf.ts';
import { fixedMasks } from '../platform-masks.ts';
import { samplePlatform } from '../platform-sample.ts';
import type { HandoffVersions } from '../releases.ts';
import type { TdxModule } from '../tdx-module.ts';

/** SEAMOPS leaves that TD preserving needs: 4 (SEAMDB reference) and 5 (SEAMDB report). */
const TD_PRESERVING_SEAMOPS = 0b11_0000;

/** Pages that the hand-off data need beside the header (docs/rules/sys-init.md). */
const MIN_HANDOFF_PAGES = 13;

const OUTPUTS = [RCX, RDX, R8, R9, R10] as const;

/** @internal */
export const sysInit: Leaf = { handler: run, beforeReady: true };

function run(module: TdxModule, lp: LogicalProcessor, version: number): bigint {
  const { q } = lp.regs;
  const reserved = q[RCX]!;
  const fatalInfo = q[R8]!;
  for (const output of OUTPUTS) q[output] = 0n;
  if (version > 1) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RAX);
  if (!module.globalLock.tryExclusive()) return STATUS.TDX_SYS_BUSY;
  try {
    if (reserved !== 0n) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
    if (module.sysState !== 'SYSINIT_PENDING') return STATUS.TDX_SYS_INIT_NOT_PENDING;
    return initialize(module, lp, version === 1 ? fatalInfo : null);
  } finally {
    module.globalLock.releaseExclusive();
  }
}

function initialize(module: TdxModule, lp: LogicalProcessor, fatalInfo: bigint | null): bigint {
  const hardware = samplePlatform(lp);
  if (typeof hardware === 'bigint') return hardware;
  const { entropy, seam } = lp.machine;
  const seamCapabilities = seam.seamopsCapabilities;
  if ((seamCapabilities & TD_PRESERVING_SEAMOPS) !== TD_PRESERVING_SEAMOPS) {
    return STATUS.TDX_INCOMPATIBLE_SEAM_CAPABILITIES;
  }
  if (!fitsSigstruct(module.release.handoff, seam.handoff)) return STATUS.TDX_SYS_INCOMPATIBLE_SIGSTRUCT;
  // The stack canary: nothing depends on its value, but it takes one number from the machine's entropy.
  if (entropy.next64() === undefined) return STATUS.TDX_RND_NO_ENTROPY;
  const fatalInfoHpa = fatalInfo === null ? null : decodeFatalInfo(hardware, fatalInfo);
  if (fatalInfoHpa === undefined) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.R8);
  module.platform = {
    ...hardware,
    ...fixedMasks(module.release, hardware),
    seamCapabilities,
    handoff: { ...seam.handoff },
    fatalInfoHpa,
  };
  module.sysState = 'SYSINIT_DONE';
  return STATUS.TDX_SUCCESS;
}

/** What the loader took from the image's SIGSTRUCT must be what the module was built with. */
function fitsSigstruct(own: HandoffVersions, told: HandoffInfo): boolean {
  if (told.moduleHv !== own.moduleHv || told.minUpdateHv < own.minUpdateHv) return false;
  return (told.noDowngrade || !own.noDowngrade) && told.pages >= MIN_HANDOFF_PAGES;
}
