# shellcheck shell=sh
# Shared by the scripts in this folder: paths, messages, becoming root. Sourced, never run.

root=$(cd "$(dirname "$0")/.." && pwd -P)
build=$root/build
venv=$root/.venv

# Ansible reads the checkout's settings wherever the script was called from.
# (The format of results is set here because `ansible-config validate` rejects a callback's options in ansible.cfg.)
ANSIBLE_CONFIG=$root/ansible.cfg
ANSIBLE_CALLBACK_RESULT_FORMAT=yaml
ANSIBLE_DISPLAY_SKIPPED_HOSTS=no
PATH=$venv/bin:$PATH
export ANSIBLE_CONFIG ANSIBLE_CALLBACK_RESULT_FORMAT ANSIBLE_DISPLAY_SKIPPED_HOSTS PATH

# Ansible refuses to start if the locale is not UTF-8, as in a bare container.
case $(locale charmap 2>/dev/null) in
    UTF-8) ;;
    *) LC_ALL=C.UTF-8; export LC_ALL ;;
esac

# The lab's folder: yours, unless a test has set another one.
LAB_DIR=${LAB_DIR:-$build/lab}
export LAB_DIR

say() { printf '%s\n' "==> $*"; }
die() { printf '%s\n' "$0: $*" >&2; exit 1; }

# missing_packages PACKAGE...: those that are not installed. (dpkg-query also lists packages that are merely suggested.)
missing_packages() {
    {
        dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true
        printf 'wanted %s\n' "$@"
    } | awk '$1 == "installed" { here[$2] } $1 == "wanted" && !($2 in here) { printf "%s%s", space, $2; space = " " }'
}

is_root() { [ "$(id -u)" -eq 0 ]; }

# Whether `sudo` may be used: without a password, or with one typed at a terminal.
can_sudo() {
    command -v sudo >/dev/null 2>&1 || return 1
    sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v; }
}

# as_root COMMAND...: run it as root, with this environment. HOME is root's, so that yours gets no root-owned files.
as_root() {
    if is_root; then
        "$@"
    else
        sudo -E -H env "PATH=$PATH" "$@"
    fi
}

# No service may start during the installation, and no new one after a restart: a machine without an SSH server must not
# start one just because the lab needs the program.
apt_get_install() {
    # shellcheck disable=SC2016  # the inner shell is to expand it
    as_root sh -eu -c '
        export DEBIAN_FRONTEND=noninteractive
        services() { systemctl list-unit-files --no-legend ssh.service mariadb.service postgresql.service; }
        had=$(services 2>/dev/null | cut -d " " -f 1 | tr "\n" " ")
        policy=/usr/sbin/policy-rc.d
        if [ ! -e $policy ]; then
            trap "rm -f $policy" EXIT
            printf "#!/bin/sh\nexit 101\n" >$policy
            chmod 755 $policy
        fi
        apt_get=$1
        shift
        "$apt_get" update
        "$apt_get" -y install --no-install-recommends "$@"
        for service in $(services 2>/dev/null | cut -d " " -f 1); do
            case " $had " in *" $service "*) continue ;; esac
            systemctl -q disable "$service" || true
            echo "==> $service was installed only for the lab and the tests and stays off; systemctl enable --now $service turns it on."
        done
    ' sh "$root/scripts/patient-apt-get" "$@"
}
