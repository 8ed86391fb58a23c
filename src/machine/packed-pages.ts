/** Pages with contents as a few arrays, for a saved machine: a page of zeroes costs a number, not 4 KiB. */
import { CACHE_LINE, PAGE_4K } from '../abi/address.ts';
import type { FrameStore } from './frames.ts';
import type { Page } from './memory.ts';

const LINES_PER_PAGE = PAGE_4K / CACHE_LINE;
const WORDS_PER_PAGE = PAGE_4K / 4;
/** Bits of `flags`. */
const HAS_CONTENTS = 1;
const HAS_LINE_OWNERS = 2;
const HAS_POISON = 4;

/** Pages ascending by number. What only some of them have lies back to back, in the same order. @internal */
export interface PackedPages {
  readonly pfns: Float64Array;
  readonly owners: Int32Array;
  readonly flags: Uint8Array;
  /** Owner of every line of the pages whose lines differ. */
  readonly lineOwners: Uint16Array;
  readonly poison: Uint8Array;
  readonly contents: Uint8Array;
}

/** @internal */
export function packPages(pages: ReadonlyMap<number, Page>, frames: FrameStore): PackedPages {
  const sorted = [...pages].sort(([a], [b]) => a - b);
  const flags = Uint8Array.from(sorted, ([, page]) => flagsOf(page, frames));
  const having = (flag: number): Page[] =>
    sorted.filter((_, i) => (flags[i]! & flag) !== 0).map(([, page]) => page);
  const split = having(HAS_LINE_OWNERS);
  const poisoned = having(HAS_POISON);
  const written = having(HAS_CONTENTS);
  const packed: PackedPages = {
    pfns: Float64Array.from(sorted, ([pfn]) => pfn),
    owners: Int32Array.from(sorted, ([, page]) => page.owner),
    flags,
    lineOwners: new Uint16Array(split.length * LINES_PER_PAGE),
    poison: new Uint8Array(poisoned.length * LINES_PER_PAGE),
    contents: new Uint8Array(written.length * PAGE_4K),
  };
  for (const [i, { owners }] of split.entries()) packed.lineOwners.set(owners!, i * LINES_PER_PAGE);
  for (const [i, { poison }] of poisoned.entries()) packed.poison.set(poison!, i * LINES_PER_PAGE);
  for (const [i, { frame }] of written.entries()) {
    packed.contents.set(frames.bytes.subarray(frame, frame + PAGE_4K), i * PAGE_4K);
  }
  return packed;
}

/** The pages again, with frames of their own. @internal */
export function unpackPages(packed: PackedPages, frames: FrameStore): readonly (readonly [number, Page])[] {
  let split = 0;
  let poisoned = 0;
  let written = 0;
  return Array.from(packed.pfns, (pfn, i) => {
    const flags = packed.flags[i]!;
    const page: Page = { frame: frames.allocate(), owner: packed.owners[i]!, owners: null, poison: null };
    if ((flags & HAS_LINE_OWNERS) !== 0) page.owners = part(packed.lineOwners, split++, LINES_PER_PAGE);
    if ((flags & HAS_POISON) !== 0) page.poison = part(packed.poison, poisoned++, LINES_PER_PAGE);
    if ((flags & HAS_CONTENTS) !== 0) frames.bytes.set(part(packed.contents, written++, PAGE_4K), page.frame);
    return [pfn, page] as const;
  });
}

function part<T extends Uint8Array | Uint16Array>(array: T, index: number, length: number): T {
  return array.slice(index * length, (index + 1) * length) as T;
}

function flagsOf({ frame, owners, poison }: Page, frames: FrameStore): number {
  const words = frames.words32.subarray(frame / 4, frame / 4 + WORDS_PER_PAGE);
  return (
    (words.some((word) => word !== 0) ? HAS_CONTENTS : 0) |
    (owners === null ? 0 : HAS_LINE_OWNERS) |
    (poison === null ? 0 : HAS_POISON)
  );
}
