/** What only a program can tell: KVM's answer to an ioctl, which Node cannot make, and the version of QEMU. */
import { execFileSync } from 'node:child_process';
import type { Access } from './file-tree.ts';

/** @public */
export interface Probes {
  /** Bit i: KVM makes virtual machines of type i (KVM_CAP_VM_TYPES). */
  readonly vmTypes?: number;
  /** The interpreter that asked KVM. */
  readonly askedBy?: string;
  /** First line of `qemu-system-x86_64 --version`. */
  readonly qemu?: string;
}

/** KVM_CHECK_EXTENSION, and KVM_CAP_VM_TYPES, which it is asked about. */
const CHECK_EXTENSION = 0xae03;
const CAP_VM_TYPES = 235;

/** Interpreters that can make an ioctl, with the program for each; it prints the bitmap. */
const ASKERS: readonly (readonly [command: string, args: readonly string[]])[] = [
  [
    'python3',
    [
      '-I',
      '-c',
      `import fcntl,os;print(fcntl.ioctl(os.open('/dev/kvm',os.O_RDWR),${CHECK_EXTENSION},${CAP_VM_TYPES}))`,
    ],
  ],
  ['perl', ['-e', `open(my $k,'+<','/dev/kvm')||die;print 0+ioctl($k,${CHECK_EXTENSION},${CAP_VM_TYPES})`]],
];

const PATIENCE_MS = 5000;

function output(command: string, args: readonly string[]): string | undefined {
  try {
    return execFileSync(command, args, {
      encoding: 'utf8',
      timeout: PATIENCE_MS,
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    return undefined;
  }
}

/** Asks the programs that are there; `kvm` is what this user may do with /dev/kvm. @internal */
export function runProbes(kvm: Access): Probes {
  const version = output('qemu-system-x86_64', ['--version'])?.split('\n')[0];
  const qemu = version === undefined ? {} : { qemu: version };
  if (kvm !== 'read-write') return qemu;
  for (const [askedBy, args] of ASKERS) {
    const answer = output(askedBy, args);
    if (answer !== undefined && /^\d+$/.test(answer)) return { ...qemu, vmTypes: Number(answer), askedBy };
  }
  return qemu;
}
