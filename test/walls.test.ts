import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const SRC = fileURLToPath(new URL('../src', import.meta.url));

/** What each floor may import; see docs/architecture.md. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  abi: [],
  machine: ['abi'],
  survey: ['abi', 'machine'],
  module: ['abi', 'machine'],
  hypervisor: ['abi', 'machine'],
  kernel: ['abi', 'machine'],
  kvm: ['abi', 'machine', 'kernel'],
  // Of the kernel only its system-call interface, as types; see below.
  vmm: ['abi', 'kernel'],
  lab: ['abi', 'machine', 'survey', 'module', 'hypervisor', 'kernel', 'kvm', 'vmm'],
  // '..' is the package's own description, for --version.
  cli: ['abi', 'machine', 'survey', 'module', 'kernel', 'vmm', 'lab', '..'],
};

interface Import {
  readonly file: string;
  readonly floor: string;
  readonly target: string;
  readonly targetPath: string;
  readonly typeOnly: boolean;
}

function sourceFiles(): string[] {
  return readdirSync(SRC, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));
}

function imports(): Import[] {
  return sourceFiles().flatMap((file) => {
    const text = readFileSync(join(SRC, file), 'utf8');
    const floor = file.split('/')[0]!;
    const statements = text.matchAll(
      /(?:import|export)\s+(type\s)?[^'";]*?from\s+'(\.[^']+)'|import\('(\.[^']+)'\)/g,
    );
    return [...statements].map((match) => {
      const targetPath = relative(SRC, resolve(SRC, dirname(file), match[2] ?? match[3]!));
      return { file, floor, target: targetPath.split('/')[0]!, targetPath, typeOnly: match[1] !== undefined };
    });
  });
}

describe('walls', () => {
  it('finds the sources and their imports', () => {
    expect(sourceFiles().length).toBeGreaterThan(20);
    expect(imports().length).toBeGreaterThan(20);
  });

  it('lets no floor import a higher or a walled-off one', () => {
    const crossings = imports().filter(
      ({ floor, target }) => floor !== target && !MAY_IMPORT[floor]?.includes(target),
    );
    expect(crossings.map(({ file, targetPath }) => `${file} -> ${targetPath}`)).toEqual([]);
  });

  it('keeps user space behind system calls: of the kernel vmm/ imports the types of that wall only', () => {
    const past = imports().filter(
      ({ floor, target, targetPath, typeOnly }) =>
        floor === 'vmm' &&
        target === 'kernel' &&
        !(typeOnly && targetPath === 'kernel/process/system-calls.ts'),
    );
    expect(past.map(({ file, targetPath }) => `${file} -> ${targetPath}`)).toEqual([]);
  });

  it('keeps survey on descriptions: it imports no live machine', () => {
    const live = imports().filter(
      ({ floor, target, targetPath }) =>
        floor === 'survey' && target === 'machine' && targetPath !== 'machine/description.ts',
    );
    expect(live.map(({ file, targetPath }) => `${file} -> ${targetPath}`)).toEqual([]);
  });

  it('fills the module slot of a machine in the module floor only, when a loader loads an image', () => {
    const fillers = sourceFiles().filter((file) =>
      /seam\.(module|loader)\s*=[^=]/.test(readFileSync(join(SRC, file), 'utf8')),
    );
    expect(fillers.length).toBeGreaterThan(0);
    expect(fillers.filter((file) => !/^(lab|module)\//.test(file))).toEqual([]);
  });
});
