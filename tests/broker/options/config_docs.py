#!/usr/bin/env python3
"""Holds docs/config.md, docs/mosquitto.md and packaging/chronos.conf to the tables of settings.

    config_docs.py TABLES CHRONOS     exits with 1 and says what differs
    CHR_REWRITE=1 config_docs.py TABLES CHRONOS
                                      writes the columns and defaults that the tables know, a row or a
                                      paragraph for each setting that has none (with its help as text), and
                                      takes out rows of settings that are gone; then look at the diff

TABLES is the program chr_test_settings_tables, CHRONOS the binary.

docs/config.md      each setting has one row; all columns but the last, its meaning, come from the tables.
docs/mosquitto.md   each option of mosquitto.conf(5) has one row: what is done with it, from the tables, and
                    the counterpart or the reason, which is the table's own sentence where it has one.
                    Each option of the installed manual page has to be there.
chronos.conf        each key of a file stands there once, commented out with its default, or set; each line
                    is accepted when it stands alone, and the file as a whole by --test-config.
"""
import gzip
import os
import re
import subprocess
import sys

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../..'))
CONFIG_MD = os.path.join(ROOT, 'docs/config.md')
MOSQUITTO_MD = os.path.join(ROOT, 'docs/mosquitto.md')
EXAMPLE = os.path.join(ROOT, 'packaging/chronos.conf')
MANUAL = '/usr/share/man/man5/mosquitto.conf.5.gz'
LISTENERS = '## Listeners'
HEADER = ['| Key | Default | Values | Changes | Mosquitto | Meaning |', '| --- | --- | --- | --- | --- | --- |']

rewrite = bool(os.environ.get('CHR_REWRITE'))
faults = []


def fault(text):
    faults.append(text)


class Option:
    def __init__(self, line):
        (self.part, self.kind, self.name, self.alias, self.letter, self.scope, self.default, self.values,
         self.reload, self.mosquitto, self.help) = line.split('\t')
        self.key = self.name.replace('-', '_')
        self.alias_key = self.alias.replace('-', '_')
        self.settable = self.kind in ('setting', 'custom', 'section', 'include')
        self.in_file = self.settable and self.scope != 'flag'

    def says(self, key):
        """Is it an option of this name? `bridge_*` stands for all that begin so."""
        return key in (self.key, self.alias_key) or (self.key.endswith('*') and key.startswith(self.key[:-1]))


def read_tables(program):
    out = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return [Option(line) for line in out.splitlines()]


def read_lines(path):
    if rewrite and not os.path.exists(path):
        return []
    with open(path, encoding='utf-8') as file:
        return file.read().splitlines()


def write_lines(path, lines):
    with open(path, 'w', encoding='utf-8') as file:
        file.write('\n'.join(lines) + '\n')


def with_new(lines, new):
    """new: index of a line, None for the last, to the lines that come after it."""
    out = []
    for index, line in enumerate(lines):
        out += [line, *new.get(index, [])]
    return out + new.get(None, [])


def cells(line):
    return [c.strip() for c in re.split(r'(?<!\\)\|', line)[1:-1]]


def row(values):
    return '| ' + ' | '.join(values) + ' |'


def first_name(cell):
    m = re.match(r'`(?:--)?([a-z0-9_.*-]+)`', cell)
    return m.group(1).replace('-', '_') if m else None


# ---- docs/config.md --------------------------------------------------------------------------------


def code(text):
    return f'`{text}`' if text else ''


def facts(option, mosquitto_names):
    """The columns before the meaning."""
    if option.scope == 'flag':
        name = f'`--{option.name}`' + (f', `-{option.letter}`' if option.letter else '')
    else:
        name = code(option.key) + (f', `{option.alias_key}`' if option.alias else '')
    if option.scope == 'not environment':
        name += ' (not in the environment)'
    if option.kind == 'include':
        name += ' (file only)'
    if option.scope == 'in listeners':
        name += ' (with `per_listener_settings`)'
    known = [k for k in (option.mosquitto.replace('-', '_'), option.key, option.alias_key) if k in mosquitto_names]
    default = option.default
    if default and (' ' not in default and ',' not in default):
        default = code(default)
    changes = 'SIGHUP' if option.reload == 'yes' or option.kind == 'include' else 'restart'
    return [name, default, option.values, '' if option.scope == 'flag' else changes, code(known[0] if known else '')]


def check_config_md(options, mosquitto_names):
    lines = read_lines(CONFIG_MD)
    out, seen, part = [], {}, 'node'
    by_name = {(o.part, o.key): o for o in options if o.settable}
    for number, line in enumerate(lines, 1):
        if line.startswith('## '):
            part = 'listener' if line.startswith(LISTENERS) else 'node'
        got = cells(line) if line.startswith('| `') else []
        if len(got) != 6:
            if line.startswith('| `'):
                fault(f'docs/config.md:{number}: a row of {len(got)} columns, not 6')
            out.append(line)
            continue
        option = by_name.get((part, first_name(got[0])))
        if not option:
            fault(f'docs/config.md:{number}: {got[0]} is no setting of a {part}')
            continue
        if (part, option.key) in seen:
            fault(f'docs/config.md:{number}: {option.key} has a row already')
            continue
        want = facts(option, mosquitto_names)
        if got[:5] != want:
            fault(f'docs/config.md:{number}: {option.key}: {row(got[:5])}, but the table says {row(want)}')
        if not got[5]:
            fault(f'docs/config.md:{number}: {option.key} has no meaning')
        seen[(part, option.key)] = len(out)
        out.append(row(want + [got[5] or option.help]))
    heading, after, new = None, {'node': None, 'listener': None}, {}
    for option in options:
        if option.kind == 'heading':
            heading = option.help
        elif option.settable and (option.part, option.key) in seen:
            after[option.part] = seen[(option.part, option.key)]
            heading = None
        elif option.settable:
            fault(f'docs/config.md: {option.part}: {option.key} is missing')
            if heading is not None:
                new.setdefault(after[option.part], []).extend(['', f'## {heading}', '', *HEADER])
                heading = None
            text = row(facts(option, mosquitto_names) + [option.help])
            new.setdefault(after[option.part], []).append(text)
    out = with_new(out, new)
    if rewrite:
        write_lines(CONFIG_MD, out)


# ---- docs/mosquitto.md -----------------------------------------------------------------------------

STATUS = {'refused': 'refused', 'no effect': 'no effect'}


def status_of(key, options):
    """(what is done with it, the table's sentence or None, the option) of a key of mosquitto.conf."""
    found = [o for o in options if o.kind != 'heading' and (o.says(key) or o.mosquitto.replace('-', '_') == key)]
    works = [o for o in found if o.settable]
    if works:
        return 'works', None, works[0]
    if not found:
        return None, None, None
    option = found[0]
    status = f'only `{option.values}`' if option.kind == 'only' else STATUS[option.kind]
    return status, option.help, option


def check_mosquitto_md(options):
    out, seen, others = [], {}, set()
    for number, line in enumerate(read_lines(MOSQUITTO_MD), 1):
        got = cells(line) if line.startswith('| `') else []
        name = first_name(got[0]) if got else None
        if len(got) != 3 or not name:
            out.append(line)
            continue
        if name in seen:
            fault(f'docs/mosquitto.md:{number}: {name} has a row already')
            continue
        seen[name] = number
        if got[0] != code(name):
            # `address` (of a bridge): the same word for something else.
            others.add(name)
            if got[1] != 'differs' or not got[2]:
                fault(f'docs/mosquitto.md:{number}: {name}: say `differs`, and how')
            out.append(line)
            continue
        status, why, _ = status_of(name, options)
        if not status:
            fault(f'docs/mosquitto.md:{number}: {name} is unknown to the tables; a file with it is refused '
                  'without a reason')
            continue
        want = [got[0], status, why.replace('|', '\\|') if why else got[2]]
        if got != want:
            fault(f'docs/mosquitto.md:{number}: {row(got)}, but the table says {row(want)}')
        if not want[2]:
            fault(f'docs/mosquitto.md:{number}: {name}: neither counterpart nor reason')
        out.append(row(want))
    for option in options:
        covered = any(option.says(name) for name in seen) or option.mosquitto.replace('-', '_') in seen
        if option.kind in ('refused', 'no effect', 'only') and option.part == 'node' and not covered:
            fault(f'docs/mosquitto.md: {option.key} is missing')
            out.append(row([code(option.key), status_of(option.key, options)[0], option.help]))
            seen[option.key] = 0
    for name in manual_names():
        if name not in seen:
            fault(f'docs/mosquitto.md: {name}, which {MANUAL} has, is missing')
            status, why, option = status_of(name, options)
            out.append(row([code(name), status or 'unknown', why or (code(option.key) if option else '')]))
            seen[name] = 0
    if rewrite:
        write_lines(MOSQUITTO_MD, out)
    return set(seen) - others


def manual_names():
    """The options that mosquitto.conf(5) of this machine describes; none when it has no such page."""
    if not os.path.exists(MANUAL):
        print(f'{MANUAL} is not there: the list is not compared with it')
        return []
    with gzip.open(MANUAL, 'rt', encoding='utf-8', errors='replace') as file:
        text = file.read().replace('\\&', '').replace('\\-', '-')
    names = []
    for heads in re.findall(r'^\.PP\n((?:\\fB[^\n]*\n)+)\.RS 4', text, re.M):
        names += re.findall(r'^\\fB([a-z0-9_*.]+)\\fR', heads, re.M)
    names = list(dict.fromkeys(names))
    if len(names) < 90 or 'acl_file' not in names:
        fault(f'{MANUAL}: only {len(names)} options were found in it')
    return names


# ---- packaging/chronos.conf ------------------------------------------------------------------------

KEY_LINE = re.compile(r'^(#?)([a-z][a-z0-9_.]*)(?:[ \t]+(.*))?$')


def wrapped(text, width=98):
    lines = ['#']
    for word in text.split():
        if len(lines[-1]) + 1 + len(word) > width:
            lines.append('#')
        lines[-1] += ' ' + word
    return lines


def check_example(options, program):
    lines = read_lines(EXAMPLE)
    seen, part, tries = {}, 'node', []
    for number, line in enumerate(lines, 1):
        m = KEY_LINE.match(line)
        if not m:
            if line and not line.startswith('# ') and line != '#':
                fault(f'chronos.conf:{number}: neither a comment nor a setting: {line}')
            continue
        key = m.group(2)
        if key == 'listener':
            part = 'listener'
        found = [o for o in options if o.part == part and o.in_file and key in (o.key, o.alias_key)] or \
                [o for o in options if o.part == 'node' and o.in_file and key in (o.key, o.alias_key)]
        if not found:
            fault(f'chronos.conf:{number}: {key} is no setting')
            continue
        option = found[0]
        if (option.part, option.key) in seen and option.kind != 'section':
            fault(f'chronos.conf:{number}: {key} stands there already')
        seen[(option.part, option.key)] = number
        if option.kind != 'include':
            tries.append((number, m.group(1) == '#', option, line.lstrip('#')))
    text = ''.join(f'{o.part}\t{line}\n' for _, _, o, line in tries)
    out = subprocess.run([program, '--try'], input=text, check=True, capture_output=True, text=True).stdout
    answers = out.splitlines()
    if len(answers) != len(tries):
        fault(f'chronos.conf: {len(tries)} lines were tried, {len(answers)} answered')
    for (number, commented, option, line), answer in zip(tries, answers):
        word, *rest = answer.split('\t')
        if word != 'ok':
            fault(f'chronos.conf:{number}: {line}: {rest[0]}')
        elif commented and option.kind == 'setting' and option.default and ' ' not in option.default and \
                rest[1] != option.default:
            fault(f'chronos.conf:{number}: {line}: commented out, so it should show the default {option.default}')
            lines[number - 1] = f'#{line.split()[0]} {option.default}'
    after, new = {'node': None, 'listener': None}, {}
    for option in options:
        if not option.in_file or option.scope == 'in listeners':
            continue
        if (option.part, option.key) in seen:
            if option.key != 'listener':
                after[option.part] = seen[(option.part, option.key)] - 1
            continue
        fault(f'chronos.conf: {option.part}: {option.key} is missing')
        new.setdefault(after[option.part], []).extend(
            ['', *wrapped(option.help), f'#{option.key} {option.default or option.values}'])
    lines = with_new(lines, new)
    if rewrite:
        write_lines(EXAMPLE, lines)


def check(options, tables):
    names = {}
    for option in options:
        for name in filter(None, (option.name, option.alias)):
            if option.kind != 'heading' and names.setdefault((option.part, name), option) is not option:
                fault(f'{option.part}: two options are named {name}')
    mosquitto_names = check_mosquitto_md(options)
    check_config_md(options, mosquitto_names)
    check_example(options, tables)


def check_canary(options, tables):
    """A setting that nobody wrote about, and one that is gone, have to be noticed."""
    new = Option('node\tsetting\tcanary-key\t\t\tanywhere\t5\t1 to 9\tno\t\tsings')
    check([*options, new, Option('node\trefused\tcanary-old\t\t\tanywhere\t\t\tno\t\tsang')], tables)
    check([o for o in options if o.name not in ('hot-limit', 'acl-file')], tables)
    text = '\n'.join(faults)
    for want in ('docs/config.md: node: canary_key is missing', 'chronos.conf: node: canary_key is missing',
                 'docs/mosquitto.md: canary_old is missing', 'hot_limit` is no setting of a node',
                 'hot_limit is no setting', 'acl_file is unknown to the tables'):
        if want not in text:
            return [f'the canary was not noticed: {want}']
    return []


def main():
    global faults
    tables, chronos = sys.argv[1:3]
    options = read_tables(tables)
    check(options, tables)
    found = faults
    if not rewrite:
        faults = []
        found += check_canary(options, tables)
        run = subprocess.run([chronos, 'single-node', '--config', EXAMPLE, '--test-config'],
                             capture_output=True, text=True)
        if run.returncode or 'valid' not in run.stdout:
            found.append(f'--test-config of chronos.conf: {run.stdout}{run.stderr}')
    for text in found:
        print(text)
    if found and not rewrite:
        print('CHR_REWRITE=1 with the same arguments writes what the tables know')
    sys.exit(1 if found and not rewrite else 0)


main()
