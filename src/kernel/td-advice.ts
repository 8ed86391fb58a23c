/** The memory policy with which a TD on this host is neither killed nor refused while TDX memory is free. */
import { KernelError, type Reason } from '../abi/errno.ts';
import { MPOL } from '../abi/system-call-flags.ts';
import type { TdAllocationPolicy } from './policy/kernel-policy.ts';
import type { MemoryPolicy } from './process/mempolicy.ts';
import type { TdxCapability, ZoneCapability } from './tdx-capability.ts';

/** @public */
export interface TdAdvice {
  /** With `policy` no allocation for a TD ends on memory that is no TDX memory, or is refused while TDX memory is free. */
  readonly safe: boolean;
  /** For the pages of TDs and for those that the module keeps about them; null when none is needed. */
  readonly policy: MemoryPolicy | null;
  /** Nodes that it names, ascending. */
  readonly nodes: readonly number[];
  /** What to put before the VMM's command line; empty when nothing is needed. */
  readonly numactl: string;
  /** What to write to the file `control_policy`; `default` when nothing is needed. */
  readonly controlPolicy: string;
  /** Memory that TDs can still get under it. */
  readonly freeBytes: number;
  readonly why: Reason;
}

/** @internal */
export function tdAdvice(
  { zones }: TdxCapability,
  off: Reason | null,
  tdAllocation: TdAllocationPolicy,
): TdAdvice {
  const none = { policy: null, nodes: [], numactl: '', controlPolicy: 'default', freeBytes: 0 };
  if (off !== null) return { ...none, safe: false, why: off };
  const reached = zones.filter(({ zone }) => zone !== 'NonTdx' && zone !== 'Movable');
  const bytes = (some: readonly ZoneCapability[]): number =>
    some.reduce((sum, { freeBytes }) => sum + freeBytes, 0);
  const wrong = reached.filter(({ tdxCapable }) => !tdxCapable);
  if (wrong.length === 0) {
    const text = 'all memory that an allocation for a TD can meet is TDX memory';
    return {
      ...none,
      safe: true,
      freeBytes: bytes(reached),
      why: { code: 'all-tdx-memory', text, data: {} },
    };
  }
  const data = { zones: wrong.map(({ node, zone }) => ({ node, zone })) };
  if (tdAllocation === 'retry') {
    const text = 'other memory is put aside until TDX memory is found (tdAllocation=retry)';
    return {
      ...none,
      safe: true,
      freeBytes: bytes(reached.filter(({ tdxCapable }) => tdxCapable)),
      why: { code: 'retried', text, data },
    };
  }
  const mixed = new Set(wrong.map(({ node }) => node));
  const pure = reached.filter(({ node }) => !mixed.has(node));
  const nodes = [...new Set(pure.map(({ node }) => node))].sort((a, b) => a - b);
  const named = [...mixed].sort((a, b) => a - b).join(', ');
  if (nodes.length === 0) {
    const text = `node ${named}: TDX memory and other memory are in the same zones, and no memory policy tells them apart; tdAllocation=retry does`;
    return { ...none, safe: false, why: { code: 'no-pure-node', text, data } };
  }
  return {
    safe: true,
    policy: { mode: MPOL.BIND, nodes },
    nodes,
    numactl: `numactl --membind=${nodes.join(',')}`,
    controlPolicy: `bind:${nodes.join(',')}`,
    freeBytes: bytes(pure),
    why: {
      code: 'bind-to-tdx-nodes',
      text: `node ${named} has memory that is no TDX memory, where an allocation for a TD fails or the TD dies`,
      data,
    },
  };
}

const MODES = {
  default: MPOL.DEFAULT,
  bind: MPOL.BIND,
  preferred: MPOL.PREFERRED,
  interleave: MPOL.INTERLEAVE,
};

/** A memory policy as a file has it: `default`, `bind:0,1`, `preferred:0`, `interleave:0,1`. @internal */
export function formatMemoryPolicy(policy: MemoryPolicy | null): string {
  if (policy === null) return 'default';
  const name = Object.entries(MODES).find(([, mode]) => mode === policy.mode)?.[0] ?? String(policy.mode);
  return `${name}:${policy.nodes.join(',')}`;
}

/** The mode and nodes that a text names. Throws EINVAL. @internal */
export function parseMemoryPolicy(text: string): {
  readonly mode: number;
  readonly nodes: readonly number[];
} {
  const { name = '', nodes = '' } = /^(?<name>[a-z]+)(?::(?<nodes>\d+(,\d+)*))?$/.exec(text)?.groups ?? {};
  const mode = Object.hasOwn(MODES, name) ? MODES[name as keyof typeof MODES] : undefined;
  if (mode === undefined) {
    throw new KernelError(
      'EINVAL',
      'no-such-value',
      `a memory policy is default, or bind, preferred or interleave with nodes such as bind:0,1, not '${text}'`,
    );
  }
  return { mode, nodes: nodes === '' ? [] : nodes.split(',').map(Number) };
}
