// SPDX-License-Identifier: GPL-2.0
/*
 * uffd-torture: writes to protected pages are told, or only noted, and UFFDIO_SET_MODE
 * switches between the two while they are made.
 */
#include "uffd-torture.h"

bool was_noted(unsigned int fd, uint64_t since)
{
	struct noting *n = &world->noting[fd];

	/* In this order: if it has been off meanwhile its time is a later one. */
	return uk_get(&n->state) % 4 == 2 && uk_get(&n->since) < since;
}

uint32_t protection(struct region *r)
{
	uint32_t epoch = uk_get(&r->wp_epoch);
	uint32_t state = uk_get(&world->noting[r->fd].state);
	bool sure = epoch % 2 == 0 && state % 4 == 0;

	/* Both only grow, so no two times that are sure have the same sum. */
	return (epoch / 2 + state / 4) * 2 + !sure;
}

/* Who sleeps is woken, whatever for. */
static void wake_all(unsigned int fd, void (*wake)(struct region *r,
						   unsigned int from,
						   unsigned int n))
{
	unsigned int i;

	for (i = 0; i < world->regions; i++)
		if (world->region[i].fd == fd)
			wake(&world->region[i], 0, world->region[i].pages);
}

void act_set_mode(struct region *r)
{
	struct noting *n = &world->noting[r->fd];
	bool on;
	int ret;

	if (!has(UFFD_FEATURE_WP_SET_MODE) || uk_get(&world->closed) ||
	    !try_lock(&n->lock))
		return;
	on = n->state % 4 == 0;
	begin(OP_SET_MODE, r->nr, -1);
	uk_add(&n->state, 1);
	wake_all(r->fd, wake_begin);
	ret = uk_set_mode(world->fd[r->fd], on ? UFFD_FEATURE_WP_ASYNC : 0,
			  on ? 0 : UFFD_FEATURE_WP_ASYNC);
	wake_all(r->fd, wake_end);
	uk_set(&n->since, tick());
	uk_add(&n->state, 1);
	end(on, ret);
	if (ret && !uk_get(&world->closed))
		fail(T_CALL, "WP_ASYNC cannot be switched %s: errno %d",
		     on ? "on" : "off", -ret);
	unlock(&n->lock);
}
