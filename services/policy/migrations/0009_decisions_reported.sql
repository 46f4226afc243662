-- What enforcement points report says what it was judged by, and whether its text is whole.
alter table decision add column truncated boolean not null default false;
alter table decision add column bundles text[] not null default '{}';
alter table decision add column rules text[] not null default '{}';
