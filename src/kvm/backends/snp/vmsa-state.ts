/** The save area that a vCPU starts with: what user space set before the launch, laid out as the processor wants it. */
import { KVM } from '../../../abi/kvm/ioctl.ts';
import { KVM_FPU, KVM_SREGS } from '../../../abi/kvm/structs.ts';
import { REGISTER_NAMES } from '../../../abi/registers.ts';
import type { ValuesOf } from '../../../abi/struct.ts';
import { resetVmsa, VMSA, type VMSA_SEGMENT } from '../../../machine/snp/vmsa.ts';
import type { Vcpu } from '../../vcpu.ts';

/** EFER.SVME, which VMRUN demands, and CR4.MCE, which KVM leaves set: user space does not see them. */
const EFER_SVME = 0x1000n;
const CR4_MCE = 0x40n;
/** Reset vector, as EIP with the code segment's base. */
const RESET_EIP = 0xffff_fff0;

type Segment = ValuesOf<typeof VMSA_SEGMENT>;
type KvmSegment = ValuesOf<typeof KVM_SREGS>['cs'];

/** A page with the state of `vcpu`. @internal */
export function initialVmsa(vcpu: Vcpu, sevFeatures: bigint): Uint8Array {
  const page = resetVmsa({ eip: RESET_EIP, sevFeatures, signature: 0 });
  const registers = Object.fromEntries(REGISTER_NAMES.map((name, i) => [name, vcpu.regs.q[i]!]));
  VMSA.patch(page, { ...registers, rip: vcpu.rip, rflags: vcpu.rflags });
  const sregs = vcpu.kept.get(KVM.SET_SREGS);
  if (sregs !== undefined) VMSA.patch(page, systemState(KVM_SREGS.decode(sregs)));
  const fpu = vcpu.kept.get(KVM.SET_FPU);
  if (fpu !== undefined) {
    const { fcw, fsw, mxcsr } = KVM_FPU.decode(fpu);
    VMSA.patch(page, { x87_fcw: fcw, x87_fsw: fsw, mxcsr });
  }
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
