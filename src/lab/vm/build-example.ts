/** Builds the VM of an example, and foretells what it will be measured as. */
import { PAGE_4K } from '../../abi/address.ts';
import type { SystemCalls } from '../../kernel/process/system-calls.ts';
import type { BackendName } from '../../kvm/backend.ts';
import { mrtdOf } from '../../vmm/mrtd.ts';
import { sampleImage } from '../../vmm/sample-image.ts';
import type { TdvfImage } from '../../vmm/tdvf/image.ts';
import { buildPkvm } from '../../vmm/vm/build-pkvm.ts';
import { buildPlain, buildSwProtected, type VmOptions } from '../../vmm/vm/build-plain.ts';
import { buildSnp, type SnpRegion } from '../../vmm/vm/build-snp.ts';
import { buildTd } from '../../vmm/vm/build-td.ts';
import type { GuestVm } from '../../vmm/vm/guest-vm.ts';
import { predictLaunchDigest } from './launch-digest.ts';

/** What a technology calls the hash of all that a guest started from, and what it will be. @public */
export interface PredictedMeasurement {
  readonly name: 'MRTD' | 'launch digest';
  /** 96 hexadecimal digits. */
  readonly digits: string;
}

/** @public */
export interface ExampleVm {
  readonly vm: GuestVm;
  readonly predicted: PredictedMeasurement | null;
}

/** @public */
export interface ExampleVmOptions extends VmOptions {
  /** TDVF image of a TD; default the embedded sample. */
  readonly image?: TdvfImage;
}

/** Throws what building throws. @public */
export async function buildExample(
  calls: SystemCalls,
  backend: BackendName,
  { image = sampleImage(), ...options }: ExampleVmOptions,
): Promise<ExampleVm> {
  switch (backend) {
    case 'plain':
      return { vm: await buildPlain(calls, options), predicted: null };
    case 'sw-protected':
      return { vm: await buildSwProtected(calls, options), predicted: null };
    case 'pkvm':
      return { vm: await buildPkvm(calls, options), predicted: null };
    case 'tdx': {
      const { vm, layout } = await buildTd(calls, image, options);
      const digits = Buffer.from(mrtdOf(layout.regions, 'one-pass')).toString('hex');
      return { vm, predicted: { name: 'MRTD', digits } };
    }
    case 'snp': {
      const regions = snpRegions(image.bytes);
      const firmwareStart = regions[0]!.gpa;
      const vm = await buildSnp(calls, { ...options, firmwareStart, regions });
      const digits = predictLaunchDigest(regions, options.vcpus ?? 1);
      return { vm, predicted: { name: 'launch digest', digits } };
    }
  }
}

const FOUR_GIB = 2 ** 32;
/** Where OVMF has its secrets page, and pages that it wants validated at the start. */
const SECRETS = 0x80_d000;
const ZEROED = { gpa: 0x80_0000, pages: 9 } as const;

/** Firmware that ends at 4 GiB, zeroed pages, the page of secrets. */
function snpRegions(firmware: Uint8Array): readonly SnpRegion[] {
  const pages = Math.ceil(firmware.length / PAGE_4K);
  return [
    { gpa: FOUR_GIB - pages * PAGE_4K, pages, source: firmware },
    { ...ZEROED, type: 'ZERO' },
    { gpa: SECRETS, pages: 1, type: 'SECRETS' },
  ];
}
