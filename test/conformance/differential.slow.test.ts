import { itAgreesWithLinux } from './agree-with-linux.ts';

itAgreesWithLinux(10_000, 600_000);
