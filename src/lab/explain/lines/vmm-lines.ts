/** Lines of QEMU and other VMMs about KVM's side of TDX (Linux host rules 2.1, 2.2). */
import type { LogLine } from './log-line.ts';

/** @internal */
export const VMM_LINES: readonly LogLine[] = [
  {
    name: 'a KVM call of a VMM failed',
    pattern: /(?<ioctl>KVM_TDX_[A-Z_]+[A-Z]) failed\W*(?<error>[A-Z][a-z]+[a-z/ ]*[a-z])/,
    says: 'KVM answered {ioctl} with "{error}".',
    cases: [],
  },
  {
    name: 'KVM has no TDs',
    pattern: /(?:vm-type|kvm-type) '?(?:X86_)?tdx(?:_VM)?'? not supported by KVM/i,
    says: 'KVM offers the VMM no TDs on this host.',
    cases: [
      {
        cause:
          'kvm_intel is loaded without tdx=1, the module did not initialise, or VMM and kernel are of different ages.',
        remedy:
          'Look for lines of virt/tdx and kvm_intel in the kernel log and explain the first that fails; load ' +
          'kvm_intel with tdx=1; take VMM and kernel from the same release.',
      },
    ],
  },
];
