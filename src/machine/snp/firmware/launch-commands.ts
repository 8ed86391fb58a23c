/** SNP_LAUNCH_START and SNP_LAUNCH_FINISH. */
import {
  SEV_STATUS,
  SNP_API,
  SNP_GUEST_STATE,
  SNP_ID_BLOCK,
  SNP_LAUNCH_FINISH,
  SNP_LAUNCH_START,
  SNP_POLICY,
} from './commands.ts';
import type { SecureProcessor } from './secure-processor.ts';

const ID_BLOCK_ENABLED = 1n;

/** SNP_LAUNCH_START: fixes the guest's policy, which this platform must satisfy. @internal */
export function launchStart(psp: SecureProcessor, bufferAddress: number): number {
  const { gctx_paddr, policy, gosvw } = psp.read(SNP_LAUNCH_START, bufferAddress);
  const context = psp.context(gctx_paddr);
  if (typeof context === 'number') return context;
  if (context.state !== SNP_GUEST_STATE.INIT) return SEV_STATUS.INVALID_GUEST_STATE;
  if (!isSatisfied(psp, policy)) return SEV_STATUS.POLICY_FAILURE;
  context.policy = policy;
  context.gosvw = gosvw;
  context.state = SNP_GUEST_STATE.LAUNCH;
  return SEV_STATUS.SUCCESS;
}

function isSatisfied(psp: SecureProcessor, policy: bigint): boolean {
  const needed = Number(policy & (SNP_POLICY.apiMajor | SNP_POLICY.apiMinor));
  if ((policy & SNP_POLICY.mustBeOne) === 0n) return false;
  if (needed > SNP_API.major * 256 + SNP_API.minor) return false;
  return (policy & SNP_POLICY.smt) !== 0n || !psp.snp.hasSmt;
}

/** SNP_LAUNCH_FINISH: the digest is final, the guest may run. An ID block must say what was launched. @internal */
export function launchFinish(psp: SecureProcessor, bufferAddress: number): number {
  const { gctx_paddr, flags, id_block_paddr, host_data } = psp.read(SNP_LAUNCH_FINISH, bufferAddress);
  const context = psp.context(gctx_paddr);
  if (typeof context === 'number') return context;
  if (context.state !== SNP_GUEST_STATE.LAUNCH) return SEV_STATUS.INVALID_GUEST_STATE;
  if ((flags & ID_BLOCK_ENABLED) !== 0n) {
    const { launch_digest, policy } = psp.read(SNP_ID_BLOCK, Number(id_block_paddr));
    if (policy !== context.policy) return SEV_STATUS.POLICY_FAILURE;
    if (launch_digest.some((byte, i) => byte !== context.launchDigest[i])) return SEV_STATUS.BAD_MEASUREMENT;
  }
  context.hostData = host_data;
  context.state = SNP_GUEST_STATE.RUNNING;
  return SEV_STATUS.SUCCESS;
}
