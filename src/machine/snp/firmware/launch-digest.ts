/**
 * The launch digest: what the firmware says a guest started from. Every page that LAUNCH_UPDATE takes in is described by
 * a PAGE_INFO record, and the SHA-384 of the record, which begins with the digest so far, is the new digest (SEV-SNP
 * firmware ABI, 8.17.2).
 */
import { createHash } from 'node:crypto';
import { bytes, struct, u8, u16, u64 } from '../../../abi/struct.ts';
import { SNP_PAGE_TYPE } from './commands.ts';

/** Bytes of a digest. @public */
export const LAUNCH_DIGEST_BYTES = 48;

/** Address that a vCPU's first save area has in the RMP and so in the digest: page -1 in 48 bits. @public */
export const INITIAL_VMSA_GPA = 0xffff_ffff_f000;

const PAGE_INFO = struct({
  digest_cur: bytes(LAUNCH_DIGEST_BYTES),
  contents: bytes(LAUNCH_DIGEST_BYTES),
  length: u16,
  page_type: u8,
  imi_page: u8,
  vmpl3_perms: u8,
  vmpl2_perms: u8,
  vmpl1_perms: u8,
  rsvd: u8,
  gpa: u64,
});

/** Types whose contents are part of the digest; others count as they are, by type and address. */
const MEASURED_TYPES: ReadonlySet<number> = new Set([SNP_PAGE_TYPE.NORMAL, SNP_PAGE_TYPE.VMSA]);

/** One 4 KiB page of the initial guest. @public */
export interface MeasuredPage {
  /** SNP_PAGE_TYPE. */
  readonly pageType: number;
  /** Guest physical address in bytes; INITIAL_VMSA_GPA for a vCPU. */
  readonly gpa: number;
  /** The page's bytes before they are encrypted; needed for NORMAL and VMSA only. */
  readonly contents?: Uint8Array;
  /** Permission masks of VMPL 1 to 3; default none. */
  readonly vmplPermissions?: readonly [number, number, number];
}

/** Digest of a guest that has nothing. @public */
export function emptyLaunchDigest(): Uint8Array {
  return new Uint8Array(LAUNCH_DIGEST_BYTES);
}

/** The digest once `page` has been taken in. Throws Error when a measured page comes without contents. @public */
export function extendLaunchDigest(digest: Uint8Array, page: MeasuredPage): Uint8Array {
  const { pageType, gpa, contents, vmplPermissions: [vmpl1 = 0, vmpl2 = 0, vmpl3 = 0] = [] } = page;
  const isMeasured = MEASURED_TYPES.has(pageType);
  if (isMeasured && contents === undefined)
    throw new Error(`page type ${pageType} is measured by its contents`);
  const info = PAGE_INFO.encode({
    digest_cur: digest,
    ...(isMeasured && { contents: sha384(contents!) }),
    length: PAGE_INFO.bytes,
    page_type: pageType,
    vmpl3_perms: vmpl3,
    vmpl2_perms: vmpl2,
    vmpl1_perms: vmpl1,
    gpa: BigInt(gpa),
  });
  return sha384(info);
}

function sha384(message: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha384').update(message).digest());
}
