/** Explains a leaf: the number a SEAMCALL or TDCALL has in RAX. */
import { hex } from '../../abi/address.ts';
import { LEAVES, type LeafInfo } from '../../abi/leaves.ts';
import type { Explanation, Fact } from './explanation.ts';
import { GUEST_LEAF_NOTES, SEAMLDR_LEAF_NOTES } from './guest-leaf-notes.ts';
import { CONNECT_GROUPS, HOST_LEAF_NOTES, type LeafNote } from './leaf-notes.ts';

const SEAMLDR_BIT = 1n << 63n;
const SIDES: Readonly<Record<LeafInfo['side'], string>> = {
  host: 'SEAMCALL, from the host',
  guest: 'TDCALL, from inside a TD',
  seamldr: 'SEAMCALL to P-SEAMLDR (RAX bit 63 set), from the host',
};

/** `TDH.SYS.RD` as `sysRd`, the name it has in source. */
function camelName(name: string): string {
  const words = name.toLowerCase().split('.').slice(1);
  return words.map((word, i) => (i === 0 ? word : word[0]!.toUpperCase() + word.slice(1))).join('');
}

/** ABI names, and the same without dots or prefix, in lower case: what a person may write. */
const BY_SPELLING = new Map<string, LeafInfo[]>();
for (const leaf of LEAVES) {
  const spellings = [
    leaf.name.toLowerCase(),
    leaf.name.toLowerCase().replaceAll('.', '_'),
    leaf.name.toLowerCase().split('.').slice(1).join('.'),
    leaf.name.toLowerCase().split('.').slice(1).join('_'),
    camelName(leaf.name).toLowerCase(),
  ];
  for (const spelling of new Set(spellings)) {
    BY_SPELLING.set(spelling, [...(BY_SPELLING.get(spelling) ?? []), leaf]);
  }
}

/** Leaves that a person may mean by `word`: `TDH.SYS.RD`, `TDH_SYS_RD`, `SYS.RD`, `sysRd`. Host leaves first. @internal */
export function leavesNamed(word: string): readonly LeafInfo[] {
  return BY_SPELLING.get(word.toLowerCase()) ?? [];
}

/** Leaves with the number that RAX holds: bits 15:0 the leaf, 23:16 the version, bit 63 P-SEAMLDR. @internal */
export function leavesNumbered(rax: bigint): readonly LeafInfo[] {
  const toSeamldr = (rax & SEAMLDR_BIT) !== 0n;
  const low = rax & ~SEAMLDR_BIT;
  if (low > (toSeamldr ? 0xffffn : 0xff_ffffn)) return [];
  const number = Number(low & 0xffffn);
  return LEAVES.filter((leaf) => leaf.number === number && (leaf.side === 'seamldr') === toSeamldr);
}

function noteFor(leaf: LeafInfo): LeafNote {
  const own = HOST_LEAF_NOTES[leaf.name] ?? GUEST_LEAF_NOTES[leaf.name] ?? SEAMLDR_LEAF_NOTES[leaf.name];
  if (own !== undefined) return own;
  const group = CONNECT_GROUPS.find(([prefix]) => leaf.name.startsWith(prefix));
  if (group === undefined) throw new Error(`leaf ${leaf.name} has no notes`);
  return group[1];
}

/** Explains one leaf; `version` is RAX bits 23:16 of the call. @internal */
export function explainLeaf(leaf: LeafInfo, version = 0): Explanation {
  const note = noteFor(leaf);
  const rax = leaf.side === 'seamldr' ? hex(SEAMLDR_BIT | BigInt(leaf.number)) : hex(leaf.number);
  const facts: Fact[] = [{ label: 'called by', text: SIDES[leaf.side] }];
  if (version > 0) facts.push({ label: 'version', text: `${version} (RAX bits 23:16)` });
  if (note.in !== undefined) facts.push({ label: 'in', text: note.in });
  if (note.out !== undefined) facts.push({ label: 'out', text: note.out });
  if (note.when !== undefined) facts.push({ label: 'when', text: note.when });
  facts.push({ label: 'since', text: `release ${leaf.firstSeen}` });
  return {
    kind: 'leaf',
    name: leaf.name,
    number: leaf.side === 'seamldr' ? rax : `${rax} (${leaf.number})`,
    summary: `${note.does[0]!.toUpperCase()}${note.does.slice(1)}.`,
    facts,
    cases: [],
    data: { leaf: leaf.number, version, side: leaf.side, firstSeen: leaf.firstSeen, ...note },
    parts: [],
  };
}
