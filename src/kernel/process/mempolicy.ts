/** Memory policies: on which node a page is allocated. */
import { KernelError } from '../../abi/errno.ts';
import { MPOL, MPOL_MF } from '../../abi/system-call-flags.ts';
import type { PageRefs } from '../page-refs.ts';

/** A policy that is not the default one: `mode` of MPOL, nodes ascending. @public */
export interface MemoryPolicy {
  readonly mode: number;
  readonly nodes: readonly number[];
}

/** What a page is allocated with. @public */
export interface PolicyAllocation {
  readonly policy: MemoryPolicy | null;
  /** Page of the file or of the address space: interleaving goes by it. */
  readonly index: number;
  /** Node of the processor that asks. */
  readonly localNode: number;
  readonly purpose: string;
}

/** Throws EINVAL for a mode or flags that mbind does not know. @public */
export function checkPolicyMode(mode: number, flags: number): void {
  if ((flags & ~(MPOL_MF.STRICT | MPOL_MF.MOVE | MPOL_MF.MOVE_ALL)) !== 0) {
    throw refusal('mempolicy-flags', `mbind does not know the flags 0x${flags.toString(16)}`, { flags });
  }
  if (!MODES.has(mode)) throw refusal('mempolicy-mode', `there is no memory policy ${mode}`, { mode });
}

/**
 * The policy of a mode that exists; null for the default one. Throws EINVAL for nodes where none may be, none where some
 * must, or nodes without memory.
 * @public
 */
export function policyOf(
  mode: number,
  nodes: readonly number[],
  online: readonly number[],
): MemoryPolicy | null {
  const takes = MODES.get(mode);
  const data = { mode, nodes };
  if (takes === 'none' && nodes.length > 0) {
    throw refusal('mempolicy-nodes', 'this memory policy takes no nodes', data);
  }
  if (takes === 'some' && nodes.length === 0) {
    throw refusal('mempolicy-nodes', 'this memory policy needs nodes', data);
  }
  const usable = [...new Set(nodes)].filter((node) => online.includes(node)).sort((a, b) => a - b);
  if (nodes.length > 0 && usable.length === 0) {
    throw refusal('mempolicy-nodes', 'none of the nodes has memory', { ...data, online });
  }
  if (mode === MPOL.DEFAULT) return null;
  if (mode === MPOL.PREFERRED && usable.length === 0) return { mode: MPOL.LOCAL, nodes: [] };
  return { mode, nodes: usable };
}

function refusal(code: string, text: string, data: Record<string, unknown>): KernelError {
  return new KernelError('EINVAL', code, text, data);
}

/** Whether a mode takes nodes. */
const MODES: ReadonlyMap<number, 'none' | 'some' | 'any'> = new Map([
  [MPOL.DEFAULT, 'none'],
  [MPOL.PREFERRED, 'any'],
  [MPOL.BIND, 'some'],
  [MPOL.INTERLEAVE, 'some'],
  [MPOL.LOCAL, 'none'],
  [MPOL.PREFERRED_MANY, 'some'],
  [MPOL.WEIGHTED_INTERLEAVE, 'some'],
]);

/** Where to look for memory, one try after the other. @public */
export interface PolicyAttempt {
  readonly node: number;
  /** Other nodes may be used when this one is full. */
  readonly fallback: boolean;
}

/** The tries that a policy makes. @public */
export function policyAttempts(
  request: Pick<PolicyAllocation, 'policy' | 'index' | 'localNode'>,
): readonly PolicyAttempt[] {
  const { policy, index, localNode } = request;
  if (policy === null || policy.nodes.length === 0) return [{ node: localNode, fallback: true }];
  const { mode, nodes } = policy;
  // All weights are 1, as on machines whose nodes are alike.
  if (mode === MPOL.INTERLEAVE || mode === MPOL.WEIGHTED_INTERLEAVE)
    return [{ node: nodes[index % nodes.length]!, fallback: true }];
  const nearest = nodes.includes(localNode) ? localNode : nodes[0]!;
  const order =
    mode === MPOL.PREFERRED ? nodes.slice(0, 1) : [nearest, ...nodes.filter((n) => n !== nearest)];
  const tries = order.map((node) => ({ node, fallback: false }));
  return mode === MPOL.BIND ? tries : [...tries, { node: order[0]!, fallback: true }];
}

/** A zeroed page with one reference, on the node the policy says; null when there is no memory. @public */
export function allocPolicyPage(refs: PageRefs, request: PolicyAllocation): number | null {
  for (const attempt of policyAttempts(request)) {
    const pfn = refs.alloc({ ...attempt, purpose: request.purpose });
    if (pfn !== null) return pfn;
  }
  return null;
}
