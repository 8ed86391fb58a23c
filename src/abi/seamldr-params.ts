/** SEAMLDR_PARAMS: what SEAMLDR.INSTALL is told of the module image (Linux host rules 1.5). */

/** Bytes of the structure, and its alignment. @public */
export const SEAMLDR_PARAMS_SIZE = 4096;
/** Module pages a structure can list. @public */
export const SEAMLDR_MAX_MODULE_PAGES = 496;

/** Start anew, or take over from the running module. @public */
export const SEAMLDR_SCENARIO = { load: 0, update: 1 } as const;

/** Physical addresses are `bigint`: they are somebody else's until checked. @public */
export interface SeamldrParams {
  readonly version: number;
  /** SEAMLDR_SCENARIO, or what the caller wrote instead. */
  readonly scenario: number;
  readonly sigstruct: bigint;
  readonly modulePages: readonly bigint[];
}

const SIGSTRUCT_OFFSET = 8;
const RESERVED_OFFSET = 16;
const PAGE_COUNT_OFFSET = 120;
const PAGES_OFFSET = 128;

/** @public */
export function encodeSeamldrParams(params: SeamldrParams): Uint8Array {
  const bytes = new Uint8Array(SEAMLDR_PARAMS_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, params.version, true);
  view.setUint32(4, params.scenario, true);
  view.setBigUint64(SIGSTRUCT_OFFSET, params.sigstruct, true);
  view.setBigUint64(PAGE_COUNT_OFFSET, BigInt(params.modulePages.length), true);
  params.modulePages.forEach((page, i) => {
    view.setBigUint64(PAGES_OFFSET + 8 * i, page, true);
  });
  return bytes;
}

/** Takes the structure apart; undefined where reserved bytes are set or more pages are listed than fit. @public */
export function decodeSeamldrParams(bytes: Uint8Array): SeamldrParams | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, SEAMLDR_PARAMS_SIZE);
  const count = view.getBigUint64(PAGE_COUNT_OFFSET, true);
  const reserved = bytes.subarray(RESERVED_OFFSET, PAGE_COUNT_OFFSET);
  if (count > SEAMLDR_MAX_MODULE_PAGES || reserved.some((byte) => byte !== 0)) return undefined;
  return {
    version: view.getUint32(0, true),
    scenario: view.getUint32(4, true),
    sigstruct: view.getBigUint64(SIGSTRUCT_OFFSET, true),
    modulePages: Array.from({ length: Number(count) }, (_, i) =>
      view.getBigUint64(PAGES_OFFSET + 8 * i, true),
    ),
  };
}
