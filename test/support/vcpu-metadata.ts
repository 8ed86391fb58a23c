/** A vCPU of a TD built through the leaves, and access to its metadata fields. */
import { TDH } from '../../src/abi/leaves.ts';
import { VCPU_FIELDS } from '../../src/abi/vcpu-fields.ts';
import { Vmcs } from '../../src/module/td/vmcs.ts';
import { type ReadyTd, readyTd, type TdOptions } from './ready-td.ts';

const ALL = 0xffff_ffff_ffff_ffffn;

/** Id of the first element of a field, by name. */
export const idOf = (name: string): bigint => VCPU_FIELDS.find((field) => field.name === name)!.id;
/** Id of a VMCS field: of the TD's own VM, or of an L2 VM. */
export const vmcsId = (encoding: number, vm = 0): bigint =>
  (BigInt(vm === 0 ? 0 : 28 + 8 * vm) << 56n) | (0x24n << 48n) | BigInt(encoding);

/** The host's VP.RD and VP.WR. */
export interface Vcpu {
  readonly t: ReadyTd;
  readonly read: (id: bigint, version?: number, lp?: number) => ReturnType<ReadyTd['call']>;
  /** The value of a field; throws where it cannot be read. */
  readonly value: (id: bigint) => bigint;
  /** Returns the status. */
  readonly write: (id: bigint, value: bigint, mask?: bigint, lp?: number) => bigint;
  readonly vmcs: (vm?: number) => Vmcs;
}

/** Builds the TD. */
export function vcpu(options: TdOptions = {}): Vcpu {
  const t = readyTd({ runnable: true, ...options });
  const read: Vcpu['read'] = (id, version = 0, lp = 0) =>
    t.call(TDH.vpRd | (version << 16), { rcx: t.tdvpr, rdx: id }, lp);
  return {
    t,
    read,
    value: (id) => {
      const { rax, r8 = 0n } = read(id);
      if (rax !== 0n) throw new Error(`VP.RD failed with 0x${rax!.toString(16)}`);
      return r8;
    },
    write: (id, value, mask = ALL, lp = 0) =>
      t.status(TDH.vpWr, { rcx: t.tdvpr, rdx: id, r8: value, r9: mask }, lp),
    vmcs: (vm = 0) => new Vmcs(t.td.tdvps(Number(t.tdvpr))!, vm),
  };
}
