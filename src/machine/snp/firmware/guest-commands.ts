/** Commands on a guest's context: GCTX_CREATE, ACTIVATE, GUEST_STATUS, DECOMMISSION, and DF_FLUSH after it. */
import { pfnOf } from '../../../abi/address.ts';
import {
  SEV_STATUS,
  SNP_ACTIVATE,
  SNP_ADDRESS,
  SNP_GUEST_STATE,
  SNP_GUEST_STATUS,
  SNP_GUEST_STATUS_PAGE,
} from './commands.ts';
import { newGuestContext } from './guest-context.ts';
import { setContextPage } from './page-states.ts';
import type { SecureProcessor } from './secure-processor.ts';

/** SNP_GCTX_CREATE: a firmware page becomes the context of a new guest. @internal */
export function gctxCreate(psp: SecureProcessor, bufferAddress: number): number {
  const { address } = psp.read(SNP_ADDRESS, bufferAddress);
  if (!psp.isPage(address)) return SEV_STATUS.INVALID_ADDRESS;
  const page = Number(address);
  if (psp.stateOf(page) !== 'firmware') return SEV_STATUS.INVALID_PAGE_STATE;
  setContextPage(psp.snp.rmp, pfnOf(page), true);
  psp.contexts.set(page, newGuestContext(Array.from({ length: 4 }, () => psp.randomKey())));
  return SEV_STATUS.SUCCESS;
}

/** SNP_ACTIVATE: binds a guest to an ASID, under which its memory is encrypted from then on. @internal */
export function activate(psp: SecureProcessor, bufferAddress: number): number {
  const { gctx_paddr, asid } = psp.read(SNP_ACTIVATE, bufferAddress);
  const context = psp.context(gctx_paddr);
  if (typeof context === 'number') return context;
  if (context.state === SNP_GUEST_STATE.INIT) return SEV_STATUS.INVALID_GUEST_STATE;
  if (context.asid !== null) return SEV_STATUS.ACTIVE;
  // ASIDs from minSevAsid on are for guests without encrypted state.
  if (asid === 0 || asid >= psp.snp.minSevAsid) return SEV_STATUS.INVALID_ASID;
  if ([...psp.contexts.values()].some((other) => other.asid === asid)) return SEV_STATUS.ASID_OWNED;
  if (psp.usedAsids.has(asid)) return SEV_STATUS.DF_FLUSH_REQUIRED;
  context.asid = asid;
  return SEV_STATUS.SUCCESS;
}

/** SNP_GUEST_STATUS. @internal */
export function guestStatus(psp: SecureProcessor, bufferAddress: number): number {
  const { gctx_paddr, address } = psp.read(SNP_GUEST_STATUS, bufferAddress);
  const context = psp.context(gctx_paddr);
  if (typeof context === 'number') return context;
  const { policy, asid, state } = context;
  return psp.answer(address, SNP_GUEST_STATUS_PAGE.encode({ policy, asid: asid ?? 0, state }));
}

/** SNP_DECOMMISSION: forgets the guest with its key. Its pages keep their ASID until the hypervisor takes them. @internal */
export function decommission(psp: SecureProcessor, bufferAddress: number): number {
  const { address } = psp.read(SNP_ADDRESS, bufferAddress);
  const context = psp.context(address);
  if (typeof context === 'number') return context;
  if (context.asid !== null) {
    psp.usedAsids.add(context.asid);
    for (const { index } of psp.machine.lps) psp.unflushedLps.add(index);
  }
  psp.contexts.delete(Number(address));
  setContextPage(psp.snp.rmp, pfnOf(Number(address)), false);
  return SEV_STATUS.SUCCESS;
}

/** SNP_DF_FLUSH: makes ASIDs that were given up free for others. Every LP must have executed WBINVD. @internal */
export function dfFlush(psp: SecureProcessor): number {
  if (psp.unflushedLps.size > 0) return SEV_STATUS.WBINVD_REQUIRED;
  psp.usedAsids.clear();
  return SEV_STATUS.SUCCESS;
}
