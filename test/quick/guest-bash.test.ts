import { guestOnShell } from '../support/guest-on-shell.ts'

guestOnShell('/usr/bin/bash')
