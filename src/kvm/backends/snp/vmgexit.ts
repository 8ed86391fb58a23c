/** VMGEXIT with a GHCB: what the guest's #VC handler passes on to the host, exit code by exit code. */
import { PAGE_4K } from '../../../abi/address.ts';
import { KernelError } from '../../../abi/errno.ts';
import {
  GHCB_ERROR,
  GHCB_EXIT,
  GHCB_HV_FEATURE_SNP,
  GHCB_RESPONSE,
  type GhcbField,
  IOIO,
} from '../../../abi/ghcb.ts';
import { KVM_SYSTEM_EVENT } from '../../../abi/kvm/exits.ts';
import { guestCpuid } from '../../guest-cpuid.ts';
import { hypercall } from '../../hypercall.ts';
import type { VcpuExit } from '../../vcpu-exit.ts';
import { handleMsrRequest } from './ghcb-msr.ts';
import { GhcbPage } from './ghcb-page.ts';
import { changePageStates } from './page-state-change.ts';
import { HANDLED, type SnpVcpu } from './snp-guest.ts';

const PAGE = BigInt(PAGE_4K);
const LOW_32 = 0xffff_ffffn;
const HALF = 32n;
/** Largest access that a GHCB carries. */
const MMIO_LIMIT = 8n;

type Handler = (vcpu: SnpVcpu, ghcb: GhcbPage) => VcpuExit;

/** What the host must find in the GHCB, and what it does. */
const HANDLERS: ReadonlyMap<number, readonly [needs: readonly GhcbField[], Handler]> = new Map<
  number,
  readonly [readonly GhcbField[], Handler]
>([
  [GHCB_EXIT.CPUID, [['rax', 'rcx'], cpuid]],
  [GHCB_EXIT.IOIO, [[], ioio]],
  [GHCB_EXIT.MSR, [['rcx'], msr]],
  [GHCB_EXIT.VMMCALL, [['rax'], vmmcall]],
  [GHCB_EXIT.MMIO_READ, [['sw_scratch'], mmio]],
  [GHCB_EXIT.MMIO_WRITE, [['sw_scratch'], mmio]],
  [GHCB_EXIT.PSC, [['sw_scratch'], ({ guest }, ghcb) => changePageStates(guest.vm, ghcb)]],
  [GHCB_EXIT.HV_FEATURES, [[], hvFeatures]],
  [GHCB_EXIT.TERM_REQUEST, [[], terminate]],
]);

/**
 * Serves a VMGEXIT. Throws EINVAL for a GHCB that is not the one registered. One that the host cannot see now is looked
 * for again after the page fault that is returned.
 * @internal
 */
export function handleVmgexit(vcpu: SnpVcpu): VcpuExit {
  vcpu.isExitPending = false;
  const { ghcb: address } = vcpu;
  if (address % PAGE !== 0n) return handleMsrRequest(vcpu);
  const gpa = Number(address);
  const gfn = gpa / PAGE_4K;
  const mapping = vcpu.nested(gfn);
  // Without a GHCB, or with one in private memory, the guest just goes on.
  if (gpa === 0 || mapping === 'mmio' || vcpu.guest.nested.isMapped(gfn, true)) return HANDLED;
  if (mapping === null) {
    vcpu.isExitPending = true;
    return { kind: 'page-fault', gpa, isPrivate: false, access: 'write', emulate: null };
  }
  if (vcpu.registeredGhcb !== address / PAGE) {
    throw new KernelError(
      'EINVAL',
      'ghcb-not-registered',
      'the guest uses a GHCB that it has not registered',
      {
        gpa,
        vcpu: vcpu.index,
      },
    );
  }
  vcpu.ghcbPage?.close();
  vcpu.ghcbPage = new GhcbPage(vcpu.vcpu.lp, vcpu.guest.vm.kernel.pageRefs, mapping.pfn, gpa);
  return serve(vcpu, vcpu.ghcbPage);
}

function serve(vcpu: SnpVcpu, ghcb: GhcbPage): VcpuExit {
  if (ghcb.usage !== 0) return malformed(ghcb, GHCB_ERROR.INVALID_USAGE);
  if (!ghcb.has('sw_exit_code', 'sw_exit_info_1', 'sw_exit_info_2'))
    return malformed(ghcb, GHCB_ERROR.MISSING_INPUT);
  const known = HANDLERS.get(Number(ghcb.get('sw_exit_code')));
  if (known === undefined) return malformed(ghcb, GHCB_ERROR.INVALID_EVENT);
  const [needs, handler] = known;
  return ghcb.has(...needs) ? handler(vcpu, ghcb) : malformed(ghcb, GHCB_ERROR.MISSING_INPUT);
}

function malformed(ghcb: GhcbPage, error: bigint): VcpuExit {
  return respond(ghcb, GHCB_RESPONSE.MALFORMED_INPUT, error);
}

function respond(ghcb: GhcbPage, info1: bigint = GHCB_RESPONSE.NO_ACTION, info2 = 0n): VcpuExit {
  ghcb.respond(info1, info2);
  return HANDLED;
}

function cpuid({ vcpu }: SnpVcpu, ghcb: GhcbPage): VcpuExit {
  const registers = guestCpuid(
    vcpu.cpuid,
    Number(ghcb.get('rax')! & LOW_32),
    Number(ghcb.get('rcx')! & LOW_32),
  );
  for (const [i, field] of (['rax', 'rbx', 'rcx', 'rdx'] as const).entries()) {
    ghcb.set(field, BigInt(registers[i]!));
  }
  return respond(ghcb);
}

function ioio(_vcpu: SnpVcpu, ghcb: GhcbPage): VcpuExit {
  const info = ghcb.get('sw_exit_info_1')!;
  const isWrite = (info & IOIO.in) === 0n;
  if ((info & IOIO.string) !== 0n) return malformed(ghcb, GHCB_ERROR.INVALID_INPUT);
  if (isWrite && !ghcb.has('rax')) return malformed(ghcb, GHCB_ERROR.MISSING_INPUT);
  const sizeBytes = Number((info >> IOIO.sizeShift) & 7n);
  const bytes = new Uint8Array(sizeBytes);
  if (isWrite) bytes.set(wordBytes(ghcb.get('rax')!).subarray(0, sizeBytes));
  return {
    kind: 'io',
    isWrite,
    port: Number((info >> IOIO.portShift) & 0xffffn),
    bytes,
    complete: (answer) => {
      if (!isWrite) ghcb.set('rax', wordOf(answer));
      ghcb.respond();
    },
  };
}

function msr({ vcpu }: SnpVcpu, ghcb: GhcbPage): VcpuExit {
  const index = Number(ghcb.get('rcx')! & LOW_32);
  if (ghcb.get('sw_exit_info_1') === 0n) {
    const value = vcpu.msrs.get(index) ?? 0n;
    ghcb.set('rax', value & LOW_32);
    ghcb.set('rdx', value >> HALF);
    return respond(ghcb);
  }
  const low = ghcb.get('rax');
  const high = ghcb.get('rdx');
  if (low === null || high === null) return malformed(ghcb, GHCB_ERROR.MISSING_INPUT);
  vcpu.msrs.set(index, (high << HALF) | (low & LOW_32));
  return respond(ghcb);
}

function vmmcall({ guest }: SnpVcpu, ghcb: GhcbPage): VcpuExit {
  const args = (['rbx', 'rcx', 'rdx'] as const).map((field) => ghcb.get(field) ?? 0n);
  const finish = (returns: bigint): VcpuExit => {
    ghcb.set('rax', returns);
    return respond(ghcb);
  };
  const outcome = hypercall(guest.vm, Number(ghcb.get('rax')! & LOW_32), args, finish);
  return 'returns' in outcome ? finish(outcome.returns) : outcome;
}

function mmio(_vcpu: SnpVcpu, ghcb: GhcbPage): VcpuExit {
  const length = ghcb.get('sw_exit_info_2')!;
  const isWrite = Number(ghcb.get('sw_exit_code')) === GHCB_EXIT.MMIO_WRITE;
  const area = length > MMIO_LIMIT ? null : ghcb.scratch(Number(length));
  if (area === null || length === 0n) return malformed(ghcb, GHCB_ERROR.INVALID_SCRATCH_AREA);
  return {
    kind: 'mmio',
    gpa: Number(ghcb.get('sw_exit_info_1')),
    isWrite,
    bytes: isWrite ? area.slice() : new Uint8Array(area.length),
    complete: (answer) => {
      if (!isWrite) area.set(answer.subarray(0, area.length));
      ghcb.respond();
    },
  };
}

function hvFeatures(_vcpu: SnpVcpu, ghcb: GhcbPage): VcpuExit {
  return respond(ghcb, GHCB_RESPONSE.NO_ACTION, GHCB_HV_FEATURE_SNP);
}

function terminate({ ghcb }: SnpVcpu): VcpuExit {
  return { kind: 'system-event', type: KVM_SYSTEM_EVENT.SEV_TERM, data: [ghcb] };
}

function wordBytes(value: bigint): Uint8Array {
  return new Uint8Array(BigUint64Array.of(BigInt.asUintN(64, value)).buffer);
}

function wordOf(bytes: Uint8Array): bigint {
  const word = new Uint8Array(8);
  word.set(bytes);
  return new DataView(word.buffer).getBigUint64(0, true);
}
