/** How the example's guest lives with each technology. */

import { MIB, PAGE_4K } from '../../abi/address.ts';
import { TDG } from '../../abi/leaves.ts';
import { SMCCC } from '../../abi/pkvm.ts';
import type { BackendName } from '../../kvm/backend.ts';
import type { GuestCpu, GuestFlow, GuestScript } from '../guest/flow.ts';
import { sharePages, unsharePages } from '../guest/pkvm-guest.ts';
import { asSnpGuest } from '../guest/snp-kernel.ts';
import { asTdGuest, TdPages } from '../guest/td-kernel.ts';
import type { Host } from '../host.ts';
import type { GuestPlatform } from './example-guest.ts';

/** MRTD in TDREPORT: TDINFO is at 512, ATTRIBUTES and XFAM come first. */
const MRTD_AT = 512 + 16;
const MRTD_BYTES = 48;
/** TDREPORT's data lies behind the report, at a multiple of 64. */
const REPORT_DATA_AT = 1024;
/** One page for each vCPU's GHCB. */
const GHCB_PAGES = 48 * MIB;

/** The platform that guests of `backend` find on `host`. @public */
export function guestPlatform(backend: BackendName, { machine }: Pick<Host, 'machine'>): GuestPlatform {
  switch (backend) {
    case 'plain':
      return { title: 'a plain VM', wrap: asItIs, convert: byHypercall };
    case 'sw-protected':
      return { title: 'a software-protected VM', wrap: asItIs, convert: byHypercall };
    case 'tdx': {
      const pages = new TdPages();
      const wrap = (script: GuestScript): GuestScript => asTdGuest(script, pages);
      return { title: 'a trust domain', wrap, convert: byHypercall, measurement: mrtd };
    }
    case 'snp': {
      const ghcb = (cpu: GuestCpu): number => GHCB_PAGES + cpu.index * PAGE_4K;
      const wrap = (script: GuestScript): GuestScript =>
        asSnpGuest(script, { cBit: machine.snp!.cBit, ghcb });
      return { title: 'an SEV-SNP guest', wrap, convert: byHypercall, hostStoresFault: true };
    }
    case 'pkvm':
      return { title: 'a protected VM of pKVM', wrap: asItIs, convert: bySharing, hostStoresFault: true };
  }
}

function asItIs(script: GuestScript): GuestScript {
  return script;
}

function* byHypercall(cpu: GuestCpu, gpa: number, isPrivate: boolean): GuestFlow<boolean> {
  return (yield* cpu.mapGpaRange(gpa, 1, isPrivate)) === 0n;
}

function* bySharing(cpu: GuestCpu, gpa: number, isPrivate: boolean): GuestFlow<boolean> {
  const status = yield* isPrivate ? unsharePages(cpu, gpa) : sharePages(cpu, gpa);
  return status === SMCCC.success;
}

/** Has the module report on the TD, and takes MRTD from the report. */
function* mrtd(cpu: GuestCpu, page: number): GuestFlow<string> {
  yield* cpu.write(page, new Uint8Array(PAGE_4K));
  // R8: subtype 0.
  const operands = { rcx: BigInt(page), rdx: BigInt(page + REPORT_DATA_AT), r8: 0n };
  yield* cpu.tdcall(TDG.mrReport, operands);
  return Buffer.from(yield* cpu.read(page + MRTD_AT, MRTD_BYTES)).toString('hex');
}
