/** The private KeyIDs of a host: who has them, and what stands in the way of their reuse. */
import { HKID_STATE } from '../../module/kot.ts';
import type { TdxModule } from '../../module/tdx-module.ts';

/** KeyIDs `first` to `last` that are alike; one that a TD or the module has stands alone. @public */
export interface KeyIdInspection {
  readonly first: number;
  readonly last: number;
  readonly state: keyof typeof HKID_STATE;
  /** TDR of the TD that has it; null for the module's own and for a free one. */
  readonly tdr: number | null;
  /** Packages whose caches must still be written back before it is free. */
  readonly pendingPackages: readonly number[];
}

const STATE_NAMES = Object.keys(HKID_STATE) as (keyof typeof HKID_STATE)[];

/** `owners` are the TDRs by KeyID. Nothing before SYS.INIT, which tells the module its KeyIDs. @internal */
export function inspectKeyIds(
  module: TdxModule,
  owners: ReadonlyMap<number, number>,
): readonly KeyIdInspection[] {
  const { platform, kot } = module;
  if (platform === null) return [];
  const runs: KeyIdInspection[] = [];
  for (let keyId = platform.privateHkidMin; keyId <= platform.privateHkidMax; keyId++) {
    const state = STATE_NAMES.find((name) => HKID_STATE[name] === kot.states[keyId])!;
    const last = runs.at(-1);
    if (state === 'FREE' && last?.state === 'FREE') {
      runs[runs.length - 1] = { ...last, last: keyId };
      continue;
    }
    const pendingPackages = packagesIn(kot.pendingPackages[keyId]!);
    const tdr = state === 'FREE' ? null : (owners.get(keyId) ?? null);
    runs.push({ first: keyId, last: keyId, state, tdr, pendingPackages });
  }
  return runs;
}

function packagesIn(bitmap: number): readonly number[] {
  return Array.from({ length: 32 }, (_, i) => i).filter((i) => ((bitmap >>> i) & 1) === 1);
}
