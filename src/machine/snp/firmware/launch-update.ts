/** SNP_LAUNCH_UPDATE: a page of the initial contents is measured, encrypted in place and handed to the guest. */
import { isAligned, PAGE_2M, PAGE_4K, pfnOf } from '../../../abi/address.ts';
import { PAGES_PER_2M, RMP_2M, RMP_4K } from '../rmp.ts';
import { SEV_STATUS, SNP_GUEST_STATE, SNP_LAUNCH_UPDATE, SNP_PAGE_TYPE, SNP_SECRETS } from './commands.ts';
import { correctedCpuidPage } from './cpuid-page.ts';
import type { GuestContextState } from './guest-context.ts';
import { extendLaunchDigest } from './launch-digest.ts';
import { makeGuestValid } from './page-states.ts';
import type { SecureProcessor } from './secure-processor.ts';

const KNOWN_TYPES: ReadonlySet<number> = new Set(Object.values(SNP_PAGE_TYPE));
/** Types that a 2 MiB page can have. */
const LARGE_TYPES: ReadonlySet<number> = new Set([
  SNP_PAGE_TYPE.NORMAL,
  SNP_PAGE_TYPE.ZERO,
  SNP_PAGE_TYPE.UNMEASURED,
]);
const SECRETS_VERSION = 3;

/** @internal */
export function launchUpdate(psp: SecureProcessor, bufferAddress: number): number {
  const buffer = psp.read(SNP_LAUNCH_UPDATE, bufferAddress);
  const pageSize = (buffer.flags & 1) === 0 ? RMP_4K : RMP_2M;
  const pageType = Math.floor(buffer.flags / 2) % 8;
  const size = pageSize === RMP_2M ? PAGE_2M : PAGE_4K;
  const context = psp.context(buffer.gctx_paddr);
  if (typeof context === 'number') return context;
  if (context.state !== SNP_GUEST_STATE.LAUNCH) return SEV_STATUS.INVALID_GUEST_STATE;
  if (context.asid === null) return SEV_STATUS.INACTIVE;
  if (!psp.isPage(buffer.address) || !isAligned(Number(buffer.address), size))
    return SEV_STATUS.INVALID_ADDRESS;
  if (!KNOWN_TYPES.has(pageType)) return SEV_STATUS.INVALID_PARAM;
  if (pageSize === RMP_2M && !LARGE_TYPES.has(pageType)) return SEV_STATUS.INVALID_PAGE_SIZE;
  const address = Number(buffer.address);
  const { rmp } = psp.snp;
  const entry = rmp.covering(pfnOf(address));
  if (psp.stateOf(address) !== 'pre-guest') return SEV_STATUS.INVALID_PAGE_STATE;
  if (entry.asid !== context.asid) return SEV_STATUS.INVALID_PAGE_OWNER;
  if (entry.pageSize !== pageSize) return SEV_STATUS.INVALID_PAGE_SIZE;
  const lowerVmpls = [buffer.vmpl1_perms, buffer.vmpl2_perms, buffer.vmpl3_perms] as const;
  for (let i = 0; i < (pageSize === RMP_2M ? PAGES_PER_2M : 1); i++) {
    const at = address + i * PAGE_4K;
    const contents = initialContents(psp, context, pageType, at);
    if (typeof contents === 'number') return contents;
    const gpa = rmp.gpaOf(pfnOf(at));
    context.launchDigest = extendLaunchDigest(context.launchDigest, {
      pageType,
      gpa,
      contents,
      vmplPermissions: lowerVmpls,
    });
    psp.snp.encryptInPlace(at, contents, context.asid);
  }
  makeGuestValid(rmp, pfnOf(address), pageType === SNP_PAGE_TYPE.VMSA, lowerVmpls);
  return SEV_STATUS.SUCCESS;
}

/** What the guest will find in a page: what the hypervisor left there, or what the type says; or a refusal. */
function initialContents(
  psp: SecureProcessor,
  context: GuestContextState,
  pageType: number,
  address: number,
): Uint8Array | number {
  if (pageType === SNP_PAGE_TYPE.ZERO) return new Uint8Array(PAGE_4K);
  if (pageType === SNP_PAGE_TYPE.SECRETS) return secretsPage(psp, context);
  const { memory, lps } = psp.machine;
  const found = memory.read(address, PAGE_4K, 0);
  if (pageType !== SNP_PAGE_TYPE.CPUID) return found;
  const corrected = correctedCpuidPage(found, lps[0]!);
  if (corrected === null) return found;
  // The hypervisor is shown what the firmware would have let pass.
  memory.write(address, corrected, 0);
  return SEV_STATUS.INVALID_PARAM;
}

function secretsPage({ machine }: SecureProcessor, { gosvw, messageKeys }: GuestContextState): Uint8Array {
  const page = new Uint8Array(PAGE_4K);
  SNP_SECRETS.patch(page, {
    version: SECRETS_VERSION,
    fms: machine.lps[0]!.cpuid(1)[0],
    gosvw,
    vmpck0: messageKeys[0]!,
    vmpck1: messageKeys[1]!,
    vmpck2: messageKeys[2]!,
    vmpck3: messageKeys[3]!,
  });
  return page;
}
