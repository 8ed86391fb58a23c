import { itAgreesWithLinux } from './agree-with-linux.ts';
import '../support/seed.ts';

itAgreesWithLinux(300, 60_000);
