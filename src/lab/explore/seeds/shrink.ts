/** The shortest part of a list that still fails (delta debugging: Zeller and Hildebrandt, 2002). */

/**
 * A part of `items`, in their order, for which `fails` holds, and of which no single item can be left out. `fails` holds
 * for the whole of it and always answers the same for the same items.
 * @public
 */
export async function shrink<T>(
  items: readonly T[],
  fails: (part: readonly T[]) => Promise<boolean>,
): Promise<readonly T[]> {
  if (items.length > 0 && (await fails([]))) return [];
  let rest = items;
  let pieces = 2;
  while (rest.length >= 2) {
    const smaller = await withoutAPiece(rest, pieces, fails);
    if (smaller !== null) {
      rest = smaller;
      pieces = Math.max(2, pieces - 1);
    } else if (pieces >= rest.length) return rest;
    else pieces = Math.min(rest.length, 2 * pieces);
  }
  return rest;
}

/** `items` less the last of `pieces` equal pieces that can go; null where each is needed. */
async function withoutAPiece<T>(
  items: readonly T[],
  pieces: number,
  fails: (part: readonly T[]) => Promise<boolean>,
): Promise<readonly T[] | null> {
  for (let piece = pieces - 1; piece >= 0; piece--) {
    const start = Math.floor((piece * items.length) / pieces);
    const end = Math.floor(((piece + 1) * items.length) / pieces);
    const part = [...items.slice(0, start), ...items.slice(end)];
    if (await fails(part)) return part;
  }
  return null;
}
