#!/bin/busybox sh
# First process of a guest, from the initramfs: loads modules, mounts the images with a tmpfs for
# writes over them and what else a system has, and goes on in there: runs the agent, and powers off
# when it ends. What fails before that panics the kernel, which ends the machine.
#
# All commands here are busybox's own, because to start a program takes long under emulation. Of
# the variables, guest_checkout, guest_systemd and TERM are words of the kernel's command line. With
# guest_systemd the first process from there on is systemd, and the agent one of its services.
set -e
/bin/busybox mount -t proc proc /proc # where it finds itself from here on
mount -t devtmpfs dev /dev
mount -t sysfs sys /sys
for module in /modules/*; do insmod "$module"; done

mount -t ext4 -o ro /dev/vda /disks/base
mount -t ext4 -o ro /dev/vdb /disks/modules
mount -t ext4 -o ro /dev/vdc /disks/checkout
mount -t tmpfs writes /disks/writes
mkdir /disks/writes/upper /disks/writes/work
mount -t overlay root /root -o lowerdir=/disks/checkout:/disks/modules:/disks/base \
    -o upperdir=/disks/writes/upper,workdir=/disks/writes/work

mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
ln -s /proc/self/fd /dev/fd
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t fusectl fusectl /sys/fs/fuse/connections
mount -t tmpfs run /root/run
mount -t tmpfs tmp /root/tmp
ln -s /proc/self/mounts /root/etc/mtab
hostname guest
if [ "$guest_systemd" ]; then
    echo 0123456789abcdef0123456789abcdef >/root/etc/machine-id # without it this is a first boot
    mkdir -p /root/run/systemd/system
    sed "s|CHECKOUT|$guest_checkout|g" /guest-agent.service \
        >/root/run/systemd/system/guest-agent.service
fi
for tree in dev sys proc; do mount -o move "/$tree" "/root/$tree"; done

export PATH="$guest_checkout/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
export HOME=/root LANG=C.UTF-8
[ -z "$guest_systemd" ] ||
    exec /bin/busybox switch_root /root /lib/systemd/systemd --unit=guest-agent.service
# A shell as first process also takes leave of orphans.
exec /bin/busybox switch_root /root /bin/sh -c '
cd "$guest_checkout"
.venv/bin/python -I -S tools/guest/agent.py
echo "init: the agent ended with status $?, powering off"
sync
echo o >/proc/sysrq-trigger
sleep 60
'
