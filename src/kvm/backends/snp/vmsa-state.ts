/** The save area that a vCPU starts with: what user space set before the launch, laid out as the processor wants it. */
import { KVM } from '../../../abi/kvm/ioctl.ts';
import { KVM_DTABLE, KVM_FPU, KVM_SEGMENT, KVM_SREGS } from '../../../abi/kvm/structs.ts';
import { REGISTER_NAMES } from '../../../abi/registers.ts';
import type { ValuesOf } from '../../../abi/struct.ts';
import { resetVmsa, VMSA, type VMSA_SEGMENT } from '../../../machine/snp/vmsa.ts';
import type { Vcpu } from '../../vcpu.ts';

/** EFER.SVME, which VMRUN demands, and CR4.MCE, which KVM leaves set: user space does not see them. */
const EFER_SVME = 0x1000n;
const CR4_MCE = 0x40n;
/** Code segment after reset; RIP is 0xfff0. */
const RESET_CODE_SEGMENT = {
  selector: 0xf000,
  base: 0xffff_0000n,
  limit: 0xffff,
  type: 11,
  s: 1,
  present: 1,
};
const RESET_CR0 = 0x10n;
const RESET_FPU = { fcw: 0x37f, mxcsr: 0x1f80 };

type Segment = ValuesOf<typeof VMSA_SEGMENT>;
type KvmSegment = ValuesOf<typeof KVM_SREGS>['cs'];

/** What KVM_GET_SREGS and KVM_GET_FPU give of a new vCPU. @internal */
export function setResetState(vcpu: Vcpu): void {
  const data = kvmSegment({ limit: 0xffff, type: 3, s: 1, present: 1 });
  const table = KVM_DTABLE.decode(KVM_DTABLE.encode({ limit: 0xffff }));
  const sregs = KVM_SREGS.encode({
    cs: kvmSegment(RESET_CODE_SEGMENT),
    ds: data,
    es: data,
    fs: data,
    gs: data,
    ss: data,
    tr: kvmSegment({ limit: 0xffff, type: 11, present: 1 }),
    ldt: kvmSegment({ limit: 0xffff, type: 2, present: 1 }),
    gdt: table,
    idt: table,
    cr0: RESET_CR0,
  });
  vcpu.kept.set(KVM.SET_SREGS, sregs);
  vcpu.kept.set(KVM.SET_FPU, KVM_FPU.encode(RESET_FPU));
}

function kvmSegment(values: Parameters<typeof KVM_SEGMENT.encode>[0]): KvmSegment {
  return KVM_SEGMENT.decode(KVM_SEGMENT.encode(values));
}

/** A page with the state of `vcpu`. @internal */
export function initialVmsa(vcpu: Vcpu, sevFeatures: bigint): Uint8Array {
  const page = resetVmsa({ eip: 0, sevFeatures, signature: 0 });
  const registers = Object.fromEntries(REGISTER_NAMES.map((name, i) => [name, vcpu.regs.q[i]!]));
  VMSA.patch(page, { ...registers, rip: vcpu.rip, rflags: vcpu.rflags });
  VMSA.patch(page, systemState(KVM_SREGS.decode(vcpu.kept.get(KVM.SET_SREGS)!)));
  const { fcw, fsw, mxcsr } = KVM_FPU.decode(vcpu.kept.get(KVM.SET_FPU)!);
  VMSA.patch(page, { x87_fcw: fcw, x87_fsw: fsw, mxcsr });
  return page;
}

function systemState(sregs: ValuesOf<typeof KVM_SREGS>): Parameters<typeof VMSA.patch>[1] {
  const { cs, ds, es, fs, gs, ss, tr, ldt, gdt, idt, cr0, cr2, cr3, cr4, efer } = sregs;
  const table = ({ base, limit }: { base: bigint; limit: number }): Segment => ({
    selector: 0,
    attrib: 0,
    limit,
    base,
  });
  return {
    cs: segment(cs),
    ds: segment(ds),
    es: segment(es),
    fs: segment(fs),
    gs: segment(gs),
    ss: segment(ss),
    tr: segment(tr),
    ldtr: segment(ldt),
    gdtr: table(gdt),
    idtr: table(idt),
    cr0,
    cr2,
    cr3,
    cr4: cr4 | CR4_MCE,
    efer: efer | EFER_SVME,
  };
}

function segment(of: KvmSegment): Segment {
  const { selector, limit, base, type, s, dpl, present, avl, l, db, g } = of;
  const bits: readonly (readonly [value: number, shift: number])[] = [
    [type, 0],
    [s, 4],
    [dpl, 5],
    [present, 7],
    [avl, 8],
    [l, 9],
    [db, 10],
    [g, 11],
  ];
  const attrib = bits.reduce((sum, [value, shift]) => sum | (value << shift), 0);
  return { selector, attrib, limit, base };
}
