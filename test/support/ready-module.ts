/** A module brought further up than loading it: through SYS.CONFIG, or ready with one TDMR initialised. */
import { GIB, MIB, PAGE_4K } from '../../src/abi/address.ts';
import { TDH } from '../../src/abi/leaves.ts';
import { encodeTdmrInfo, type TdmrInfo } from '../../src/abi/tdmr-info.ts';
import type { MachineDescription } from '../../src/machine/description.ts';
import { findRelease, type ModuleRelease } from '../../src/module/releases.ts';
import { type ModuleMachine, moduleMachine } from './module-machine.ts';

/** Where the host puts TDMR_INFO structures and the array of their addresses. */
export const TDMR_ARRAY = 0x10_0000;
const TDMR_INFOS = 0x10_1000;
/** KeyID of the module. */
export const GLOBAL_KEYID = 40;

/** One TDMR of 1 GiB at 4 GiB; its PAMT and a hole of 4 MiB in it are reserved or lie elsewhere. */
export const ONE_TDMR: TdmrInfo = {
  base: 4 * GIB,
  size: GIB,
  pamt1gBase: 6 * GIB,
  pamt1gSize: PAGE_4K,
  pamt2mBase: 6 * GIB + MIB,
  pamt2mSize: 2 * PAGE_4K,
  pamt4kBase: 6 * GIB + 4 * MIB,
  pamt4kSize: 4 * MIB,
  reserved: [{ offset: 512 * MIB, size: 4 * MIB }],
};

/** SYS.INIT once and LP.INIT everywhere; throws when one fails. */
export function initialise(host: ModuleMachine): ModuleMachine {
  succeed(host.status(TDH.sysInit));
  for (const lp of host.machine.lps) succeed(host.status(TDH.sysLpInit, {}, lp.index));
  return host;
}

/** Writes TDMRs into memory as a host does and returns what SYS.CONFIG answers. */
export function configure(
  host: ModuleMachine,
  infos: readonly TdmrInfo<number | bigint>[],
  options: { readonly dynamicPamt?: boolean; readonly keyId?: number } = {},
): bigint {
  const { memory } = host.machine;
  infos.forEach((info, i) => {
    memory.write(TDMR_INFOS + 512 * i, encodeTdmrInfo(info), 0);
    memory.write64(TDMR_ARRAY + 8 * i, BigInt(TDMR_INFOS + 512 * i), 0);
  });
  const dynamic = options.dynamicPamt === true ? 1n << 16n : 0n;
  return host.status(TDH.sysConfig, {
    rcx: BigInt(TDMR_ARRAY),
    rdx: BigInt(infos.length),
    r8: BigInt(options.keyId ?? GLOBAL_KEYID) | dynamic,
  });
}

/** KEY.CONFIG on both packages and TDMR.INIT until every TDMR is done. */
export function finish(host: ModuleMachine, infos: readonly TdmrInfo[]): void {
  succeed(host.status(TDH.sysKeyConfig, {}, 0));
  succeed(host.status(TDH.sysKeyConfig, {}, 2));
  for (const { base, size } of infos) {
    for (let next = 0n; next < base + size; ) {
      const out = host.call(TDH.sysTdmrInit, { rcx: BigInt(base) });
      succeed(out.rax!);
      next = out.rdx ?? 0n;
    }
  }
}

/** A module that is ready, with `ONE_TDMR` and KeyID `GLOBAL_KEYID`. */
export function readyModule(
  options: {
    readonly dynamicPamt?: boolean;
    readonly machine?: Partial<MachineDescription>;
    readonly release?: ModuleRelease;
  } = {},
): ModuleMachine {
  const host = moduleMachine(options.machine, options.release ?? findRelease('1.5.25')!);
  initialise(host);
  succeed(configure(host, [ONE_TDMR], { dynamicPamt: options.dynamicPamt === true }));
  finish(host, [ONE_TDMR]);
  return host;
}

function succeed(status: bigint): void {
  if (status !== 0n) throw new Error(`the call failed with 0x${status.toString(16)}`);
}
