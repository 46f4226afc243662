-- name: save
insert into a2a_task (tenant_id, id, context_id, agent, work_id, state, updated_at, task)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict (tenant_id, id) do update set work_id = excluded.work_id, state = excluded.state,
  updated_at = excluded.updated_at, task = excluded.task;

-- name: find
select * from a2a_task where id = $1;

-- name: search
select * from a2a_task
where ($1 = '' or agent = $1) and ($2 = '' or context_id = $2) and ($3 = 0 or state = $3)
  and ($4::timestamptz is null or updated_at >= $4)
  and ($5::timestamptz is null or (updated_at, id) < ($5, $6))
order by updated_at desc, id desc
limit $7;

-- name: count
select count(*) from a2a_task
where ($1 = '' or agent = $1) and ($2 = '' or context_id = $2) and ($3 = 0 or state = $3)
  and ($4::timestamptz is null or updated_at >= $4);

-- name: put_address
insert into a2a_address (tenant_id, task_id, id, config) values ($1, $2, $3, $4)
on conflict (tenant_id, task_id, id) do update set config = excluded.config;

-- name: addresses
select config from a2a_address where task_id = $1 order by id collate "C";

-- name: delete_address
delete from a2a_address where task_id = $1 and id = $2;
