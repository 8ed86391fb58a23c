/**
 * Module images as data: a signed statement and pages, in which the model keeps nothing but the release's name.
 * They let a loader install another release from memory, with the checks a real loader makes.
 */
import { createHash } from 'node:crypto';
import { PAGE_4K } from '../abi/address.ts';
import { encodeSeamSigstruct } from '../abi/seam-sigstruct.ts';
import { findRelease, type ModuleRelease } from './releases.ts';

/** @public */
export interface ModuleImage {
  /** SEAM_SIGSTRUCT, filled up to a page. */
  readonly sigstruct: Uint8Array;
  readonly pages: readonly Uint8Array[];
}

const LABEL = 'TDX module ';
const SECURITY_VERSION_BASE = 1;

/** The image of a release: one page with its name. @public */
export function moduleImage(release: ModuleRelease): ModuleImage {
  const page = new Uint8Array(PAGE_4K);
  page.set(new TextEncoder().encode(LABEL + release.version));
  const sigstruct = new Uint8Array(PAGE_4K);
  sigstruct.set(
    encodeSeamSigstruct({
      date: release.buildDate,
      seamHash: sha384(page),
      seamSvn: SECURITY_VERSION_BASE,
      cpuidTable: release.knownFms,
    }),
  );
  return { sigstruct, pages: [page] };
}

/** The release whose image these bytes are, or undefined. @internal */
export function releaseOfImage(bytes: Uint8Array): ModuleRelease | undefined {
  const end = bytes.indexOf(0);
  const text = new TextDecoder().decode(bytes.subarray(0, Math.max(end, 0)));
  return text.startsWith(LABEL) ? findRelease(text.slice(LABEL.length)) : undefined;
}

/** @internal */
export function sha384(bytes: Uint8Array): Uint8Array {
  return createHash('sha384').update(bytes).digest();
}
