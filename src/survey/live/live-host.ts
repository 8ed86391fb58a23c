/** The machine this runs on. */
import type { HostSource } from './collection.ts';
import { DirectoryTree, MemoryTree } from './file-tree.ts';
import { readKernelLog } from './kernel-log.ts';
import { MSR_NAMES, readMsrs } from './msrs.ts';
import { runProbes } from './probes.ts';
import { ABSENT_FILE } from './reading.ts';

/** Only Linux shows what is looked for; elsewhere the name of the system is all there is to say. @internal */
export function liveHost(platform: string = process.platform): HostSource {
  if (platform !== 'linux') {
    return {
      platform,
      tree: new MemoryTree(new Map()),
      kernelLog: () => ABSENT_FILE,
      msrs: () => new Map(MSR_NAMES.map((name) => [name, ABSENT_FILE])),
      probes: () => ({}),
    };
  }
  const tree = new DirectoryTree('/');
  return {
    platform,
    tree,
    kernelLog() {
      const log = readKernelLog();
      if (log.state === 'read') return log;
      // What the distribution saved of this boot, which more users may read.
      const saved = tree.read('/var/log/dmesg');
      return saved.state === 'read' ? { state: 'read', value: new TextDecoder().decode(saved.value) } : log;
    },
    msrs: readMsrs,
    probes: () => runProbes(tree.access('/dev/kvm')),
  };
}
