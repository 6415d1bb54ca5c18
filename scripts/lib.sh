# shellcheck shell=sh
# Shared by the scripts in this folder: where things are, how to speak, how to become root. Sourced, never run.

root=$(cd "$(dirname "$0")/.." && pwd -P)
build=$root/build
venv=$root/.venv

# Ansible reads the checkout's settings wherever the script was called from.
# (How results look is up to options of a callback plugin, which ansible.cfg cannot hold and still pass
# `ansible-config validate`.)
ANSIBLE_CONFIG=$root/ansible.cfg
ANSIBLE_CALLBACK_RESULT_FORMAT=yaml
ANSIBLE_DISPLAY_SKIPPED_HOSTS=no
PATH=$venv/bin:$PATH
export ANSIBLE_CONFIG ANSIBLE_CALLBACK_RESULT_FORMAT ANSIBLE_DISPLAY_SKIPPED_HOSTS PATH

# Ansible refuses to start where the locale is not UTF-8, as in a bare container.
case $(locale charmap 2>/dev/null) in
    UTF-8) ;;
    *) LC_ALL=C.UTF-8; export LC_ALL ;;
esac

# The folder of the lab that is meant: yours, unless a test has set another one.
LAB_DIR=${LAB_DIR:-$build/lab}
export LAB_DIR

say() { printf '%s\n' "==> $*"; }
die() { printf '%s\n' "$0: $*" >&2; exit 1; }

# installed PACKAGE: whether Debian's package is here. (dpkg-query succeeds for one that is only suggested by another.)
installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

is_root() { [ "$(id -u)" -eq 0 ]; }

# Whether `sudo` may be used: without a password, or with one typed at a terminal.
can_sudo() {
    command -v sudo >/dev/null 2>&1 || return 1
    sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v; }
}

# as_root COMMAND...: run it as root, with this environment; HOME becomes root's, so that yours keeps no root-owned files.
as_root() {
    if is_root; then
        "$@"
    else
        sudo -E -H env "PATH=$PATH" "$@"
    fi
}
