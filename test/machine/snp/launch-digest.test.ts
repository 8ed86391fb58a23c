import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../src/abi/address.ts';
import { SNP_PAGE_TYPE } from '../../../src/machine/snp/firmware/commands.ts';
import {
  emptyLaunchDigest,
  extendLaunchDigest,
  INITIAL_VMSA_GPA,
  type MeasuredPage,
} from '../../../src/machine/snp/firmware/launch-digest.ts';
import { resetVmsa, VMSA, VMSA_REGISTER_OFFSETS } from '../../../src/machine/snp/vmsa.ts';

const { ZERO, SECRETS, CPUID, NORMAL, VMSA: VMSA_PAGE, UNMEASURED } = SNP_PAGE_TYPE;
const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const chain = (start: Uint8Array, pages: readonly MeasuredPage[]): string =>
  hexOf(pages.reduce((digest, page) => extendLaunchDigest(digest, page), start));
const run = (pageType: number, gpa: number, bytes: number): MeasuredPage[] =>
  Array.from({ length: bytes / PAGE_4K }, (_, i) => ({ pageType, gpa: gpa + i * PAGE_4K }));

/** Two builds of OVMF by their own digest and what their metadata lists; both start APs at the same address. */
const AP_EIP = 0x80_b004;
const BSP_EIP = 0xffff_fff0;
const OVMF_X64 = {
  digest: 'b91e6fec73d2bcc57ad5fd400a426ce02731c22ea92bc894ce675e7c9921a822977d6cf025b85f8ef4f264bff8839d20',
  pages: [
    ...run(ZERO, 0x80_0000, 0x9000),
    ...run(ZERO, 0x80_a000, 0x3000),
    ...run(SECRETS, 0x80_d000, 0x1000),
    ...run(CPUID, 0x80_e000, 0x1000),
    ...run(ZERO, 0x80_f000, 0x1000),
    ...run(ZERO, 0x81_0000, 0x1_0000),
  ],
};
const OVMF_AMD_SEV = {
  digest: '086e2e9149ebf45abdc3445fba5b2da8270bdbb04094d7a2c37faaa4b24af3aa16aff8c374c2a55c467a50da6d466b74',
  pages: OVMF_X64.pages,
};
/** EPYC-v4 of QEMU. */
const SIGNATURE = 0x80_0f12;

function vmsas(count: number, sevFeatures: bigint): MeasuredPage[] {
  return Array.from({ length: count }, (_, i) => ({
    pageType: VMSA_PAGE,
    gpa: INITIAL_VMSA_GPA,
    contents: resetVmsa({ eip: i === 0 ? BSP_EIP : AP_EIP, sevFeatures, signature: SIGNATURE }),
  }));
}

describe('launch digest', () => {
  it.each([
    // Figures of the test suite of virtee/sev-snp-measure.
    [
      'OvmfX64, 1 vCPU, features 0x21',
      OVMF_X64,
      1,
      0x21n,
      '28797ae0afaba4005a81e629acebfb59e6687949d6be44007cd5506823b0dd66f146aaae26ff291eed7b493d8a64c385',
    ],
    [
      'OvmfX64, 1 vCPU, features 1',
      OVMF_X64,
      1,
      1n,
      'da0296de8193586a5512078dcd719eccecbd87e2b825ad4148c44f665dc87df21e5b49e21523a9ad993afdb6a30b4005',
    ],
    [
      'AmdSev without kernel hashes, 1 vCPU, features 0x21',
      OVMF_AMD_SEV,
      1,
      0x21n,
      'e1e1ca029dd7973ab9513295be68198472dcd4fc834bd9af9b63f6e8a1674dbf281a9278a4a2ebe0eed9f22adbcd0e2b',
    ],
    [
      'AmdSev without kernel hashes, 1 vCPU, features 1',
      OVMF_AMD_SEV,
      1,
      1n,
      '19358ba9a7615534a9a1e2f0dfc29384dcd4dcb7062ff9c6013b26869a5fc6ecabe033c48dd6f6db5d6d76e7c5df632d',
    ],
    // Figures that the tool computes for the same image.
    [
      'OvmfX64, 4 vCPUs',
      OVMF_X64,
      4,
      1n,
      '479f9790ab0fc8853278a4720f13e3e89565184045076e2fa6149790fd2fda28da8da3aa223d771a7bb5498dcdee3ff7',
    ],
  ])('is the published one: %s', (_, ovmf, vcpus, features, expected) => {
    const pages = [...ovmf.pages, ...vmsas(vcpus, features)];
    expect(chain(Buffer.from(ovmf.digest, 'hex'), pages)).toBe(expected);
  });

  it('takes in normal pages by their contents, unmeasured ones by their address', () => {
    const counting = Uint8Array.from({ length: PAGE_4K }, (_, i) => i % 256);
    const pages: MeasuredPage[] = [{ pageType: NORMAL, gpa: 0x1000, contents: counting }];
    expect(chain(emptyLaunchDigest(), pages)).toBe(
      'd9ee416942ec5db1caf25b01cff7feaed0d7ac42422f811c6164e4857e3f800d270202f572ade105c96b3959107b8521',
    );
    pages.push({ pageType: NORMAL, gpa: 0x2000, contents: new Uint8Array(PAGE_4K) });
    pages.push({ pageType: UNMEASURED, gpa: 0x3000, contents: counting });
    expect(chain(emptyLaunchDigest(), pages)).toBe(
      'd0ba85b30496f8676480ba20b69a993d325113df8f2e5a377decfb156f429efaef66b8ac8c4ac1a92a1de4150cd90fbb',
    );
  });

  it('refuses to measure contents that are not there', () => {
    expect(() => extendLaunchDigest(emptyLaunchDigest(), { pageType: NORMAL, gpa: 0 })).toThrow('contents');
  });
});

describe('VMSA', () => {
  it('has its fields where the manual has them', () => {
    const at = (name: keyof typeof VMSA.offsets) => VMSA.offsets[name];
    expect([at('vmpl'), at('efer'), at('xss'), at('rip'), at('rsp')]).toEqual([202, 208, 320, 376, 472]);
    expect([at('g_pat'), at('rcx'), at('sev_features'), at('xcr0'), at('mxcsr')]).toEqual([
      616, 776, 944, 1000, 1032,
    ]);
    expect(VMSA_REGISTER_OFFSETS[0]).toBe(504);
    expect(VMSA_REGISTER_OFFSETS[15]).toBe(888);
  });
});
