/** One kit for each backend. */
import type { Kit } from './kit.ts';
import { PKVM_KIT } from './pkvm-kit.ts';
import { SNP_KIT } from './snp-kit.ts';
import { PLAIN_KIT, SW_PROTECTED_KIT } from './software-kits.ts';
import { TDX_KIT } from './tdx-kit.ts';

export const KITS: readonly Kit[] = [PLAIN_KIT, SW_PROTECTED_KIT, TDX_KIT, SNP_KIT, PKVM_KIT];
