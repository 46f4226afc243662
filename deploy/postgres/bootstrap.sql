-- name: roles
do $$
declare
  service text;
begin
  if not exists (select from pg_roles where rolname = 'agentnet_owner') then
    create role agentnet_owner login nosuperuser nobypassrls;
  end if;
  foreach service in array
    array['gateway', 'orchestrator', 'orchestrator_driver', 'inference', 'tools', 'policy', 'memory', 'cost']
  loop
    if not exists (select from pg_roles where rolname = 'agentnet_' || service) then
      execute format('create role %I login nosuperuser nobypassrls nocreatedb nocreaterole', 'agentnet_' || service);
    end if;
  end loop;
end $$;

-- name: set_password
select format('alter role %I password %L', $1::text, $2::text);

-- name: database_exists
select exists (select from pg_database where datname = 'agentnet');

-- name: create_database
create database agentnet owner agentnet_owner encoding 'UTF8' template template0;

-- name: schemas
create extension if not exists vector;
revoke all on schema public from public;
grant usage on schema public to public;
grant create on schema public to agentnet_owner;
do $$
declare
  service text;
begin
  foreach service in array array['gateway', 'orchestrator', 'inference', 'tools', 'policy', 'memory', 'cost'] loop
    execute format('create schema if not exists %I authorization agentnet_owner', service);
    execute format('grant usage on schema %I to %I', service, 'agentnet_' || service);
    execute format('alter role %I set search_path = %I, public', 'agentnet_' || service, service);
    execute format(
      'alter default privileges for role agentnet_owner in schema %I grant select, insert, update, delete on tables to %I',
      service, 'agentnet_' || service);
    execute format(
      'alter default privileges for role agentnet_owner in schema %I grant usage on sequences to %I',
      service, 'agentnet_' || service);
  end loop;
  grant usage on schema orchestrator to agentnet_orchestrator_driver;
  alter role agentnet_orchestrator_driver set search_path = orchestrator, public;
end $$;
