/** The launch digest through the whole stack, against a tool that guest owners use. */
import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../../src/abi/address.ts';
import { KVM } from '../../../../src/abi/kvm/ioctl.ts';
import { KVM_SEV_SNP_PAGE_TYPE } from '../../../../src/abi/kvm/sev.ts';
import { KVM_DTABLE, KVM_REGS, KVM_SEGMENT, KVM_SREGS } from '../../../../src/abi/kvm/structs.ts';
import { refusal, snpHost, UserSnp } from './user-snp.ts';

const page = (value: number, pages = 1): Uint8Array => new Uint8Array(pages * PAGE_4K).fill(value);

describe('the launch digest', () => {
  /** What virtee/sev-snp-measure's library gives for these pages and two vCPUs of EPYC-v4 under QEMU. */
  const EXPECTED =
    'a240d112d3bf59b0f7858d9d7c1f9b08b5982ba7c6b544972cd23488850a2f0a80835b32ae843396170fe3218106b263';
  const SIGNATURE = 0x80_0f12n;
  const AP_EIP = 0x80_b004;

  it('is the one that a tool for guest owners predicts', async () => {
    const host = await snpHost();
    const user = await UserSnp.create(host);
    await user.init();
    for (const id of [0, 1]) {
      const fd = await user.addVcpu(id);
      const eip = id === 0 ? 0xffff_fff0 : AP_EIP;
      const sregs = new Uint8Array(KVM_SREGS.bytes);
      await user.task.ioctl(fd, KVM.GET_SREGS, sregs);
      if (id === 0) expect(sregs).toEqual(KVM_SREGS.encode(resetSregs(eip)));
      const regs = { rdx: SIGNATURE, rip: BigInt(eip % 0x1_0000), rflags: 2n };
      await user.task.ioctl(fd, KVM.SET_REGS, KVM_REGS.encode(regs));
      await user.task.ioctl(fd, KVM.SET_SREGS, KVM_SREGS.encode(resetSregs(eip)));
    }
    await user.addMemory(16, 0n, 0, 0x80_0000);
    await user.addMemory(1, 0n, 1, 0xffff_f000);
    await user.start();
    const counting = Uint8Array.from({ length: PAGE_4K }, (_, i) => i % 256);
    const { NORMAL, ZERO, SECRETS, CPUID, UNMEASURED } = KVM_SEV_SNP_PAGE_TYPE;
    await user.update(0xffff_f000, counting, NORMAL);
    await user.update(0x80_0000, page(0, 9), ZERO);
    await user.update(0x80_a000, page(0, 3), ZERO);
    await user.update(0x80_d000, page(7), SECRETS);
    await user.update(0x80_e000, page(0), CPUID);
    await user.update(0x80_f000, counting, UNMEASURED);
    await user.finish();
    const regs = new Uint8Array(KVM_REGS.bytes);
    expect(await refusal(user.task.ioctl(user.vcpus[0]!.fd, KVM.GET_REGS, regs))).toBe(
      'EINVAL protected-state',
    );
    const [context] = host.snp.snp.firmware.contexts.values();
    expect(Buffer.from(context!.launchDigest).toString('hex')).toBe(EXPECTED);
  });

  /** System registers as QEMU has them after reset. */
  function resetSregs(eip: number): Parameters<typeof KVM_SREGS.encode>[0] {
    const segment = (values: Parameters<typeof KVM_SEGMENT.encode>[0]) =>
      KVM_SEGMENT.decode(KVM_SEGMENT.encode({ limit: 0xffff, present: 1, ...values }));
    const data = segment({ type: 3, s: 1 });
    const table = KVM_DTABLE.decode(KVM_DTABLE.encode({ limit: 0xffff }));
    return {
      cs: segment({ type: 11, s: 1, selector: 0xf000, base: BigInt(eip - (eip % 0x1_0000)) }),
      ds: data,
      es: data,
      fs: data,
      gs: data,
      ss: data,
      tr: segment({ type: 11 }),
      ldt: segment({ type: 2 }),
      gdt: table,
      idt: table,
      cr0: 0x10n,
    };
  }
});
