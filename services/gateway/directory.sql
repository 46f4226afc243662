-- name: put_tenant
insert into tenant (tenant_id, id, display_name, suspended, requests_per_second, burst, created_at)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (tenant_id, id) do update set
  display_name = excluded.display_name, suspended = excluded.suspended,
  requests_per_second = excluded.requests_per_second, burst = excluded.burst
returning *;

-- name: tenant
select * from tenant where id = $1;

-- name: tenants
select * from tenant
where ($1::boolean is null or suspended = $1) and id > $2 collate "C"
order by id collate "C"
limit $3;

-- name: put_user
insert into app_user (tenant_id, subject, display_name, service_account, roles, suspended, created_at)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (tenant_id, subject) do update set
  display_name = excluded.display_name, service_account = excluded.service_account, roles = excluded.roles,
  suspended = excluded.suspended
returning *;

-- name: user
select * from app_user where subject = $1;

-- name: users
select * from app_user
where ($1::boolean is null or service_account = $1) and subject > $2 collate "C"
order by subject collate "C"
limit $3;

-- name: delete_user
delete from app_user where subject = $1 returning subject;

-- name: put_role
insert into role (tenant_id, name, scopes, description) values ($1, $2, $3, $4)
on conflict (tenant_id, name) do update set scopes = excluded.scopes, description = excluded.description;

-- name: roles
select * from role order by name collate "C";

-- name: delete_role
delete from role where name = $1 returning name;
