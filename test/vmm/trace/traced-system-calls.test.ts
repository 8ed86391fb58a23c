import { describe, expect, it } from 'vitest';
import { MIB, PAGE_4K } from '../../../src/abi/address.ts';
import { KVM } from '../../../src/abi/kvm/ioctl.ts';
import { KVM_CREATE_GUEST_MEMFD } from '../../../src/abi/kvm/structs.ts';
import { KVM_VM_TYPE } from '../../../src/abi/kvm/vm-types.ts';
import { FALLOC_FL, MADV, MAP, MPOL, PROT } from '../../../src/abi/system-call-flags.ts';
import { startProcess } from '../../../src/kernel/process/process.ts';
import { startVmHost } from '../../../src/lab/vm/vm-host.ts';
import { sampleImage } from '../../../src/vmm/sample-image.ts';
import { TracedSystemCalls } from '../../../src/vmm/trace/traced-system-calls.ts';
import { buildTd } from '../../../src/vmm/vm/build-td.ts';
import { TINY } from '../../kernel/tiny-machine.ts';

async function traced() {
  const { kernel } = await startVmHost('tdx', TINY, { hints: { hibernationDisabled: true } });
  const lines: string[] = [];
  const task = startProcess(kernel);
  const calls = new TracedSystemCalls(task, (line) => lines.push(line));
  return { calls, lines, task };
}

describe('TracedSystemCalls', () => {
  it('tells calls by the names of their words, and descriptors by what they are of', async () => {
    const { calls, lines } = await traced();
    const kvm = await calls.open('/dev/kvm', 2);
    const vm = await calls.ioctl(kvm, KVM.CREATE_VM, KVM_VM_TYPE.SW_PROTECTED);
    const request = KVM_CREATE_GUEST_MEMFD.encode({ size: BigInt(MIB), flags: 1n });
    const file = await calls.ioctl(vm, KVM.CREATE_GUEST_MEMFD, request);
    await calls.fallocate(file, FALLOC_FL.KEEP_SIZE, 0, 2 * PAGE_4K);
    calls.fstat(file);
    await calls.close(file);
    expect(lines).toEqual([
      'open("/dev/kvm", O_RDWR) = 3',
      'ioctl(3</dev/kvm>, KVM_CREATE_VM, KVM_VM_TYPE_SW_PROTECTED) = 4',
      'ioctl(4<vm>, KVM_CREATE_GUEST_MEMFD, {size=0x100000, flags=GUEST_MEMFD_FLAG_MMAP}) = 5',
      'fallocate(5<guest_memfd>, FALLOC_FL_KEEP_SIZE, 0x0, 0x2000) = 0',
      'fstat(5<guest_memfd>) = 0 {st_size=0x100000, st_blocks=16}',
      'close(5<guest_memfd>) = 0',
    ]);
  });

  it('tells errnos with their reasons, and signals', async () => {
    const { calls, lines } = await traced();
    await expect(calls.open('/dev/none')).rejects.toThrow();
    await expect(calls.ioctl(9, KVM.CREATE_VM, 0)).rejects.toThrow();
    expect(() => calls.fstat(9)).toThrow();
    await expect(calls.load(0x5000, 4)).rejects.toThrow();
    expect(lines).toEqual([
      expect.stringMatching(/^open\("\/dev\/none", O_RDONLY\) = -1 ENOENT \(.+\)$/),
      expect.stringMatching(/^ioctl\(9, KVM_CREATE_VM, KVM_VM_TYPE_DEFAULT\) = -1 EBADF \(.+\)$/),
      expect.stringMatching(/^fstat\(9\) = -1 EBADF \(.+\)$/),
      expect.stringMatching(/^--- SIGSEGV at 0x5000: .+ ---$/),
    ]);
  });

  it('tells calls about memory', async () => {
    const { calls, lines } = await traced();
    const prot = PROT.READ | PROT.WRITE;
    const at = await calls.mmap({ lengthBytes: 8192, prot, flags: MAP.PRIVATE | MAP.ANONYMOUS });
    calls.mbind(at, 8192, MPOL.BIND, [0]);
    calls.getMempolicy(at);
    calls.pageNodes([at]);
    await calls.madvise(at, 8192, MADV.DONTNEED);
    await calls.munmap(at, 8192);
    const fd = calls.memfdCreate('mine');
    calls.dup(fd);
    await calls.ftruncate(fd, 4096);
    await calls.pwrite(fd, new Uint8Array(8), 0);
    await calls.write(fd, new Uint8Array(3));
    await calls.pread(fd, 4, 0);
    await calls.read(fd, 5);
    const a = `0x${at.toString(16)}`;
    expect(lines).toEqual([
      `mmap(NULL, 0x2000, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0x0) = ${a}`,
      `mbind(${a}, 0x2000, MPOL_BIND, [0]) = 0`,
      `get_mempolicy(${a}) = MPOL_BIND [0]`,
      expect.stringMatching(/^move_pages\(1 pages\) = 0 \[-\d+\]$/),
      `madvise(${a}, 0x2000, MADV_DONTNEED) = 0`,
      `munmap(${a}, 0x2000) = 0`,
      'memfd_create("mine", 0) = 3',
      'dup(3<memfd:mine>) = 4',
      'ftruncate(3<memfd:mine>, 0x1000) = 0',
      'pwrite64(3<memfd:mine>, 8, 0x0) = 8',
      'write(3<memfd:mine>, 3) = 3',
      'pread64(3<memfd:mine>, 4, 0x0) = 4',
      'read(3<memfd:mine>, 5) = 5',
    ]);
  });

  it("takes a TD's commands apart, what they point to included, and shows the module's answer", async () => {
    const { calls, lines } = await traced();
    const { vm } = await buildTd(calls, sampleImage());
    const find = (part: string): string => lines.find((line) => line.includes(part)) ?? '';
    expect(find('INIT_VM')).toMatch(
      /\{id=KVM_TDX_INIT_VM, data=\{attributes=0x10000000, xfam=0x[0-9a-f]+, nent=\d+\}\}\) = 0/,
    );
    expect(find('INIT_VCPU')).toContain('{id=KVM_TDX_INIT_VCPU, data=0x809000}');
    expect(find('INIT_MEM_REGION')).toMatch(
      /flags=KVM_TDX_MEASURE_MEMORY_REGION, data=\{source_addr=0x[0-9a-f]+, gpa=0xffff4000, nr_pages=12\}/,
    );
    expect(find('KVM_ENABLE_CAP')).toContain('{cap=KVM_CAP_EXIT_HYPERCALL, args=[0x1000]}');
    await vm.close();
    expect(lines.at(-1)).toBe('close(3</dev/kvm>) = 0');
  });

  it('shares the names of descriptors between threads', async () => {
    const { calls, lines, task } = await traced();
    await calls.open('/dev/kvm', 2);
    const thread = new TracedSystemCalls(task.thread(), (line) => lines.push(line), calls);
    await thread.ioctl(3, KVM.GET_API_VERSION);
    expect(lines.at(-1)).toBe('ioctl(3</dev/kvm>, KVM_GET_API_VERSION) = 12');
  });
});
