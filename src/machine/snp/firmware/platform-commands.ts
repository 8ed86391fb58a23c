/** SNP_INIT_EX, SNP_PLATFORM_STATUS, SNP_PAGE_RECLAIM. */
import { isAligned, PAGE_2M, pfnOf } from '../../../abi/address.ts';
import { RMP_2M, RMP_4K } from '../rmp.ts';
import {
  SEV_STATUS,
  SNP_ADDRESS,
  SNP_API,
  SNP_INIT_EX,
  SNP_PAGE_RECLAIM,
  SNP_PLATFORM_STATUS_PAGE,
} from './commands.ts';
import { makeMutable, RECLAIMED } from './page-states.ts';
import type { SecureProcessor } from './secure-processor.ts';

const INIT_RMP = 1;

/** SNP_INIT_EX: takes the platform into the INIT state. @internal */
export function initEx(psp: SecureProcessor, bufferAddress: number): number {
  const { flags } = psp.read(SNP_INIT_EX, bufferAddress);
  const { snp, machine } = psp;
  if (psp.initialised) return SEV_STATUS.INVALID_PLATFORM_STATE;
  if (!machine.lps.every((lp) => snp.isEnabledOn(lp))) return SEV_STATUS.INVALID_CONFIG;
  if ((flags & INIT_RMP) === 0) return SEV_STATUS.RMP_INIT_REQUIRED;
  snp.rmp.clear();
  psp.initialised = true;
  return SEV_STATUS.SUCCESS;
}

/** SNP_PLATFORM_STATUS. Before INIT_EX no page has a state, so any page will do. @internal */
export function platformStatus(psp: SecureProcessor, bufferAddress: number): number {
  const { address } = psp.read(SNP_ADDRESS, bufferAddress);
  const status = SNP_PLATFORM_STATUS_PAGE.encode({
    api_major: SNP_API.major,
    api_minor: SNP_API.minor,
    state: Number(psp.initialised),
    is_rmp_initialized: Number(psp.initialised),
    guest_count: psp.contexts.size,
  });
  if (psp.initialised) return psp.answer(address, status);
  if (!psp.isPage(address)) return SEV_STATUS.INVALID_ADDRESS;
  psp.machine.memory.write(Number(address), status, 0);
  return SEV_STATUS.SUCCESS;
}

/** SNP_PAGE_RECLAIM: the firmware gives up a page that it holds for itself or for a guest's launch. @internal */
export function pageReclaim(psp: SecureProcessor, bufferAddress: number): number {
  const { paddr } = psp.read(SNP_PAGE_RECLAIM, bufferAddress);
  const pageSize = paddr % 2n === 1n ? RMP_2M : RMP_4K;
  const address = paddr - (paddr % 2n);
  if (!psp.isPage(address) || (pageSize === RMP_2M && !isAligned(Number(address), PAGE_2M))) {
    return SEV_STATUS.INVALID_ADDRESS;
  }
  const { rmp } = psp.snp;
  const pfn = pfnOf(Number(address));
  if (rmp.covering(pfn).pageSize !== pageSize) return SEV_STATUS.INVALID_PAGE_SIZE;
  if (RECLAIMED[psp.stateOf(Number(address))] === undefined) return SEV_STATUS.INVALID_PAGE_STATE;
  makeMutable(rmp, pfn);
  return SEV_STATUS.SUCCESS;
}
