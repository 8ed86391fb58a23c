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

/**
 * The policy that mbind's arguments say; null for the default. Throws EINVAL for an unknown mode or flag, nodes where
 * none may be, none where some must, or nodes without memory.
 * @public
 */
export function checkPolicy(
  mode: number,
  nodes: readonly number[],
  online: readonly number[],
  flags = 0,
): MemoryPolicy | null {
  const refuse = (code: string, text: string): never => {
    throw new KernelError('EINVAL', code, text, { mode, nodes, flags });
  };
  if ((flags & ~(MPOL_MF.STRICT | MPOL_MF.MOVE | MPOL_MF.MOVE_ALL)) !== 0) {
    refuse('mempolicy-flags', `mbind does not know the flags 0x${flags.toString(16)}`);
  }
  const known = MODES.get(mode);
  if (known === undefined) return refuse('mempolicy-mode', `there is no memory policy ${mode}`);
  if (known === 'none' && nodes.length > 0) refuse('mempolicy-nodes', 'this memory policy takes no nodes');
  if (known === 'some' && nodes.length === 0) refuse('mempolicy-nodes', 'this memory policy needs nodes');
  const usable = [...new Set(nodes)].filter((node) => online.includes(node)).sort((a, b) => a - b);
  if (nodes.length > 0 && usable.length === 0) refuse('mempolicy-nodes', 'none of the nodes has memory');
  if (mode === MPOL.DEFAULT) return null;
  if (mode === MPOL.PREFERRED && usable.length === 0) return { mode: MPOL.LOCAL, nodes: [] };
  return { mode, nodes: usable };
}

/** Whether a mode takes nodes. */
const MODES: ReadonlyMap<number, 'none' | 'some' | 'any'> = new Map([
  [MPOL.DEFAULT, 'none'],
  [MPOL.PREFERRED, 'any'],
  [MPOL.BIND, 'some'],
  [MPOL.INTERLEAVE, 'some'],
  [MPOL.LOCAL, 'none'],
  [MPOL.PREFERRED_MANY, 'some'],
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
  if (mode === MPOL.INTERLEAVE) return [{ node: nodes[index % nodes.length]!, fallback: true }];
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
