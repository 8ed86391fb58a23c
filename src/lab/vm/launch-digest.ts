/** The launch digest of an SNP guest that does not exist yet. */
import { PAGE_4K } from '../../abi/address.ts';
import { KVM_SEV_SNP_PAGE_TYPE } from '../../abi/kvm/sev.ts';
import { SNP_PAGE_TYPE } from '../../machine/snp/firmware/commands.ts';
import {
  emptyLaunchDigest,
  extendLaunchDigest,
  INITIAL_VMSA_GPA,
} from '../../machine/snp/firmware/launch-digest.ts';
import { resetVmsa, SEV_FEATURES } from '../../machine/snp/vmsa.ts';
import type { SnpRegion } from '../../vmm/vm/build-snp.ts';

const RESET_VECTOR = 0xffff_fff0;

/** Of the regions in their order, and of `vcpus` vCPUs that start at the reset vector; 96 hexadecimal digits. @public */
export function predictLaunchDigest(regions: readonly SnpRegion[], vcpus: number): string {
  let digest = emptyLaunchDigest();
  for (const { gpa, pages, source = new Uint8Array(), type = 'NORMAL' } of regions) {
    for (let at = 0; at < pages * PAGE_4K; at += PAGE_4K) {
      const contents = new Uint8Array(PAGE_4K);
      contents.set(source.subarray(at, at + PAGE_4K));
      digest = extendLaunchDigest(digest, { pageType: KVM_SEV_SNP_PAGE_TYPE[type], gpa: gpa + at, contents });
    }
  }
  const vmsa = { eip: RESET_VECTOR, sevFeatures: SEV_FEATURES.snpActive, signature: 0 };
  for (let i = 0; i < vcpus; i++) {
    const page = { pageType: SNP_PAGE_TYPE.VMSA, gpa: INITIAL_VMSA_GPA, contents: resetVmsa(vmsa) };
    digest = extendLaunchDigest(digest, page);
  }
  return Buffer.from(digest).toString('hex');
}
