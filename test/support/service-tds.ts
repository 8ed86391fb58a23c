/** A TD that is still being built, and migration TDs beside it that can be bound to it. */
import { TDH } from '../../src/abi/leaves.ts';
import type { RegisterName } from '../../src/abi/registers.ts';
import { TDR } from '../../src/module/td/layout.ts';
import { anotherTd, type ReadyTd, readyTd, type TdOptions } from './ready-td.ts';

/** Attributes of a binding: parts of TDINFO that do not matter, by the number of their bit. */
export const ignoring = (...parts: readonly number[]): bigint =>
  parts.reduce((bits, part) => bits | (1n << BigInt(32 + part)), 0n);

/** Two TDs on one host. */
export interface ServedTd {
  /** The TD to serve: initialised, without vCPU. */
  readonly target: ReadyTd;
  /** A TD that runs and may serve. */
  readonly service: ReadyTd;
  /** TDH.SERVTD.BIND of the service TD to the target, unless `operands` say otherwise. */
  readonly bind: (operands?: Partial<Record<RegisterName, bigint>>) => ReturnType<ReadyTd['call']>;
  /** VP.CREATE, VP.ADDCX, VP.INIT and MR.FINALIZE of the target. Returns the TDVPR. */
  readonly finalise: () => bigint;
}

export function servedTd(options: TdOptions = {}): ServedTd {
  const target = readyTd();
  const service = anotherTd(target, { runnable: true, keyId: 42, ...options });
  return {
    target,
    service,
    bind: (operands = {}) => target.call(TDH.servtdBind, { rcx: target.tdr, rdx: service.tdr, ...operands }),
    finalise: () => {
      const tdvpr = target.page();
      const need = (leaf: number, operands: Partial<Record<RegisterName, bigint>>): void => {
        const status = target.status(leaf, operands);
        if (status !== 0n) throw new Error(`leaf ${leaf} failed with 0x${status.toString(16)}`);
      };
      need(TDH.vpCreate, { rcx: tdvpr, rdx: target.tdr });
      for (let i = 0; i < 5; i++) need(TDH.vpAddcx, { rcx: target.page(), rdx: tdvpr });
      need(TDH.vpInit, { rcx: tdvpr });
      need(TDH.mrFinalize, { rcx: target.tdr });
      return tdvpr;
    },
  };
}

/** The four numbers of a TD's UUID. */
export function uuid({ td }: ReadyTd): [bigint, bigint, bigint, bigint] {
  return [0, 1, 2, 3].map((i) => td.tdr.u64(TDR.TD_UUID + 8 * i)) as [bigint, bigint, bigint, bigint];
}
