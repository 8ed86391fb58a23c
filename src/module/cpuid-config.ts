/**
 * CPUID leaves that a TD's creator configures, by release (published tables of releases 1.0 to 1.5.25), in the order
 * of CPUID_CONFIG_LEAVES and of TDSYSINFO.CPUID_CONFIG.
 */
import type { CpuidQuad } from '../abi/cpuid-policy.ts';
import { compareVersions } from '../abi/global-fields.ts';

/** Bits of one leaf that TD_PARAMS sets directly, and bits it may leave on where the CPU has them. @public */
export interface CpuidConfig {
  readonly leaf: number;
  /** Absent where the leaf has no subleaves. */
  readonly subleaf: number | undefined;
  readonly direct: CpuidQuad;
  readonly allow: CpuidQuad;
}

interface Stage {
  readonly since: string;
  readonly direct?: CpuidQuad;
  readonly allow?: CpuidQuad;
}

const NONE: CpuidQuad = [0, 0, 0, 0];

const HISTORY: readonly {
  readonly leaf: number;
  readonly subleaf?: number;
  readonly history: readonly Stage[];
}[] = [
  {
    leaf: 0x1,
    history: [
      { since: '1.0', direct: [0x0, 0xff0000, 0x0, 0x0], allow: [0x0, 0x0, 0x44180, 0xb0400000] },
      { since: '1.5.01', direct: [0xfff3fff, 0xff0000, 0x0, 0x0], allow: [0x0, 0x0, 0x31044d88, 0xb8440000] },
      { since: '1.5.09', direct: [0xfff3fff, 0xff0000, 0x0, 0x0], allow: [0x0, 0x0, 0x31044d88, 0xb8445080] },
    ],
  },
  {
    leaf: 0x4,
    subleaf: 0,
    history: [
      { since: '1.0', direct: [0xffffffff, 0xfffff000, 0xffffffff, 0xffffffff] },
      { since: '1.5.01', direct: [0xffffc3ff, 0xfffff000, 0xffffffff, 0xfffffffb] },
      { since: '1.5.09', direct: [0xffffc3ff, 0xfffff000, 0xffffffff, 0x7] },
    ],
  },
  {
    leaf: 0x4,
    subleaf: 1,
    history: [
      { since: '1.0', direct: [0xffffffff, 0xfffff000, 0xffffffff, 0xffffffff] },
      { since: '1.5.01', direct: [0xffffc3ff, 0xfffff000, 0xffffffff, 0xfffffffb] },
      { since: '1.5.09', direct: [0xffffc3ff, 0xfffff000, 0xffffffff, 0x7] },
    ],
  },
  {
    leaf: 0x4,
    subleaf: 2,
    history: [
      { since: '1.0', direct: [0xffffffff, 0xfffff000, 0xffffffff, 0xffffffff] },
      { since: '1.5.01', direct: [0xffffc3ff, 0xfffff000, 0xffffffff, 0xfffffffb] },
      { since: '1.5.09', direct: [0xffffc3ff, 0xfffff000, 0xffffffff, 0x7] },
    ],
  },
  {
    leaf: 0x4,
    subleaf: 3,
    history: [
      { since: '1.0', direct: [0xffffffff, 0xfffff000, 0xffffffff, 0xffffffff] },
      { since: '1.5.01', direct: [0xffffc3ff, 0xfffff000, 0xffffffff, 0x7] },
    ],
  },
  {
    leaf: 0x7,
    subleaf: 0,
    history: [
      { since: '1.0', allow: [0x0, 0x89108, 0x2020, 0x40000] },
      { since: '1.5.01', allow: [0x0, 0xdc2b9b18, 0x2417f65, 0x5411c] },
      { since: '1.5.09', allow: [0x0, 0xdc2b9b18, 0x2417f65, 0x4005411c] },
    ],
  },
  {
    leaf: 0x7,
    subleaf: 1,
    history: [
      { since: '1.5.01', allow: [0x1d30, 0x0, 0x0, 0x0] },
      { since: '1.5.05', allow: [0x4001d30, 0x0, 0x0, 0x430] },
      { since: '1.5.06', allow: [0x4881db0, 0x0, 0x0, 0x20430] },
      { since: '1.5.16', allow: [0x4881db0, 0x0, 0x0, 0x24430] },
    ],
  },
  { leaf: 0xa, history: [{ since: '1.5.01' }] },
  { leaf: 0x1c, history: [{ since: '1.5.01', allow: [0xff, 0x0, 0x0, 0x0] }] },
  {
    leaf: 0x80000008,
    history: [
      { since: '1.5.01', allow: [0x0, 0x200, 0x0, 0x0] },
      { since: '1.5.06', direct: [0xff, 0x0, 0x0, 0x0], allow: [0x0, 0x200, 0x0, 0x0] },
    ],
  },
  { leaf: 0x7, subleaf: 2, history: [{ since: '1.5.01', allow: [0x0, 0x0, 0x0, 0x28] }] },
  { leaf: 0x23, subleaf: 0, history: [{ since: '1.5.01', allow: [0xf, 0x0, 0x0, 0x0] }] },
  { leaf: 0x1f, subleaf: 0, history: [{ since: '1.5.05', direct: [0x1f, 0xffff, 0xffff, 0x0] }] },
  { leaf: 0x1f, subleaf: 1, history: [{ since: '1.5.05', direct: [0x1f, 0xffff, 0xffff, 0x0] }] },
  { leaf: 0x1f, subleaf: 2, history: [{ since: '1.5.05', direct: [0x1f, 0xffff, 0xffff, 0x0] }] },
  { leaf: 0x1f, subleaf: 3, history: [{ since: '1.5.05', direct: [0x1f, 0xffff, 0xffff, 0x0] }] },
  { leaf: 0x1f, subleaf: 4, history: [{ since: '1.5.05', direct: [0x1f, 0xffff, 0xffff, 0x0] }] },
  { leaf: 0x1f, subleaf: 5, history: [{ since: '1.5.05', direct: [0x1f, 0xffff, 0xffff, 0x0] }] },
  { leaf: 0x19, history: [{ since: '1.5.09' }] },
  { leaf: 0x18, subleaf: 0, history: [{ since: '1.5.09', direct: [0x0, 0x0, 0x0, 0x3ffc000] }] },
  { leaf: 0x18, subleaf: 1, history: [{ since: '1.5.09', direct: [0x0, 0x0, 0x0, 0x3ffc000] }] },
  { leaf: 0x18, subleaf: 2, history: [{ since: '1.5.09', direct: [0x0, 0x0, 0x0, 0x3ffc000] }] },
  { leaf: 0x18, subleaf: 3, history: [{ since: '1.5.09', direct: [0x0, 0x0, 0x0, 0x3ffc000] }] },
  { leaf: 0x18, subleaf: 4, history: [{ since: '1.5.09', direct: [0x0, 0x0, 0x0, 0x3ffc000] }] },
  { leaf: 0x18, subleaf: 5, history: [{ since: '1.5.09', direct: [0x0, 0x0, 0x0, 0x3ffc000] }] },
  { leaf: 0x18, subleaf: 6, history: [{ since: '1.5.09', direct: [0x0, 0x0, 0x0, 0x3ffc000] }] },
  { leaf: 0x18, subleaf: 7, history: [{ since: '1.5.09', direct: [0x0, 0x0, 0x0, 0x3ffc000] }] },
  { leaf: 0x18, subleaf: 8, history: [{ since: '1.5.09', direct: [0x0, 0x0, 0x0, 0x3ffc000] }] },
];

const BY_VERSION = new Map<string, readonly CpuidConfig[]>();

/** The leaves a TD's creator configures with release `version`. @public */
export function cpuidConfigsOf(version: string): readonly CpuidConfig[] {
  const known = BY_VERSION.get(version);
  if (known !== undefined) return known;
  const configs = HISTORY.flatMap(({ leaf, subleaf, history }) => {
    const stage = history.findLast(({ since }) => compareVersions(since, version) <= 0);
    return stage === undefined
      ? []
      : [{ leaf, subleaf, direct: stage.direct ?? NONE, allow: stage.allow ?? NONE }];
  });
  BY_VERSION.set(version, configs);
  return configs;
}
