// Certificates for a test: an authority, what it signs, what it revokes; by the openssl command.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const openssl = (...args) => execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'pipe'] });

export class Authority {
    constructor(dir, name = 'Farm CA') {
        this.dir = dir;
        mkdirSync(dir, { recursive: true });
        this.crt = join(dir, 'ca.crt');
        this.key = join(dir, 'ca.key');
        openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '30',
            '-subj', `/CN=${name}`, '-keyout', this.key, '-out', this.crt);
        writeFileSync(join(dir, 'index.txt'), '');
        writeFileSync(join(dir, 'index.txt.attr'), 'unique_subject = no\n');
        writeFileSync(join(dir, 'serial'), '1000\n');
        writeFileSync(join(dir, 'crlnumber'), '01\n');
        this.config = join(dir, 'ca.cnf');
        writeFileSync(this.config, `
[ca]
default_ca = own
[own]
dir = ${dir}
database = ${dir}/index.txt
new_certs_dir = ${dir}
serial = ${dir}/serial
crlnumber = ${dir}/crlnumber
certificate = ${this.crt}
private_key = ${this.key}
default_md = sha256
default_days = 30
default_crl_days = 30
policy = anything
copy_extensions = copy
[anything]
organizationName = optional
organizationalUnitName = optional
commonName = supplied
`);
    }

    /** {crt, key} of a new certificate; dates as openssl ca takes them (YYMMDDHHMMSSZ). */
    issue(file, { subject = `/CN=${file}`, san, start, end } = {}) {
        const crt = join(this.dir, `${file}.crt`), key = join(this.dir, `${file}.key`), csr = join(this.dir, `${file}.csr`);
        openssl('req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', subject, '-utf8',
            '-keyout', key, '-out', csr, ...(san ? ['-addext', `subjectAltName=${san}`] : []));
        openssl('ca', '-batch', '-utf8', '-config', this.config, '-in', csr, '-out', crt, '-notext', '-preserveDN',
            ...(start ? ['-startdate', start, '-enddate', end] : []));
        return { crt, key };
    }

    revoke({ crt }) {
        openssl('ca', '-config', this.config, '-revoke', crt);
    }

    /** Writes the list of what is revoked now; its path. */
    crl() {
        const file = join(this.dir, 'crl.pem');
        openssl('ca', '-config', this.config, '-gencrl', '-out', file);
        return file;
    }
}

/** Is there an openssl command? */
export const haveOpenssl = (process.env.PATH ?? '').split(':').some((dir) => existsSync(join(dir, 'openssl')));
